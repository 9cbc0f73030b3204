"""The practice mailbox by POP3 (RFC 1939): the inbox, XOAUTH2 in two lines as at Exchange (FACTS 2.5)."""

from __future__ import annotations

from proxy.demo.conversation import Conversation, Over
from proxy.demo.post_office import INBOX, Folder, Message


class Pop3Conversation(Conversation):
    def converse(self) -> None:
        self.say("+OK The Microsoft Exchange POP3 service is ready.")
        folder = self._log_in()
        messages, doomed = folder.messages, set[Message]()
        while True:
            command, *arguments = self.line().decode("ascii", "replace").split() or [""]
            present = {str(n): m for n, m in enumerate(messages, 1) if m not in doomed}
            match command.upper(), arguments:
                case "STAT", []:
                    self.say(f"+OK {len(present)} {sum(len(m.data) for m in present.values())}")
                case "LIST", []:
                    self.say("+OK", *(f"{n} {len(m.data)}" for n, m in present.items()), ".")
                case "UIDL", []:
                    self.say("+OK", *(f"{n} {_unique(folder, m)}" for n, m in present.items()), ".")
                case (("LIST" | "UIDL" | "RETR" | "DELE" | "TOP"), [number, *_]) if number not in present:
                    self.say("-ERR The specified message is out of range.")
                case "LIST", [number]:
                    self.say(f"+OK {number} {len(present[number].data)}")
                case "UIDL", [number]:
                    self.say(f"+OK {number} {_unique(folder, present[number])}")
                case "RETR", [number]:
                    self._send(present[number].data)
                case "TOP", [number, lines] if lines.isdigit():
                    head, _, body = present[number].data.partition(b"\r\n\r\n")
                    self._send(b"\r\n".join([head, b"", *body.split(b"\r\n")[: int(lines)]]))
                case "DELE", [number]:
                    doomed.add(present[number])
                    self.say("+OK")
                case "RSET", []:
                    doomed.clear()
                    self.say("+OK")
                case "NOOP", []:
                    self.say("+OK")
                case "CAPA", []:
                    self._announce()
                case "QUIT", []:
                    folder.remove(doomed)
                    self._leave()
                case _:
                    self.say("-ERR Protocol error. 14")

    def _log_in(self) -> Folder:
        while True:
            match self.line().decode("ascii", "replace").split():
                case [auth, xoauth2] if (auth.upper(), xoauth2.upper()) == ("AUTH", "XOAUTH2"):
                    self.say("+ ")
                    mailbox = self.mailbox_of(self.line())
                    if mailbox is not None:
                        self.say("+OK User successfully authenticated.")
                        return self.server.post_office.open(mailbox)[INBOX]
                    self.say("-ERR Authentication failure: unknown user name or bad password.")
                case [auth, *_] if auth.upper() == "AUTH":
                    self.say("-ERR Protocol error. Connection is closed. 10")
                    raise Over
                case [user, _] if user.upper() == "USER":
                    self.say("+OK")
                case [password, *_] if password.upper() == "PASS":
                    self.say("-ERR Logon failure: unknown user name or bad password.")
                case [capa] if capa.upper() == "CAPA":
                    self._announce()
                case [leave] if leave.upper() == "QUIT":
                    self._leave()
                case _:
                    self.say("-ERR Command is not valid in this state.")

    def _announce(self) -> None:
        self.say("+OK", "TOP", "UIDL", "SASL XOAUTH2", "USER", ".")

    def _leave(self) -> None:
        self.say("+OK Microsoft Exchange Server POP3 server signing off.")
        raise Over

    def _send(self, data: bytes) -> None:
        lines = data.removesuffix(b"\r\n").split(b"\r\n")
        self.say("+OK", *(b"." + line if line.startswith(b".") else line for line in lines), ".")


def _unique(folder: Folder, message: Message) -> str:
    return f"{folder.uid_validity}.{message.uid}"
