"""The practice mailbox by IMAP (RFC 3501 and a little of 9051): what curl, imaplib and desktop programs use."""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Callable, Sequence

from proxy.demo.conversation import Conversation, Over
from proxy.demo.imap_fetch import MACROS, NoSuchItem, marks_seen, show
from proxy.demo.imap_words import FLAGS, Argument, Bad, flag, listed, parse, spans, text
from proxy.demo.post_office import INBOX, MAX_MESSAGE_OCTETS, SPECIAL_USE, Folder, Full, Message

CAPABILITIES = (
    "IMAP4 IMAP4rev1 AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+ SPECIAL-USE"
)
IDLE_TICK_S = 0.5  # how soon an idle program hears of new mail


class Refused(Exception):
    """A tagged NO."""


class ImapConversation(Conversation):
    _mailbox: str | None = None
    _folder: Folder | None = None
    _read_only = False
    _view: list[Message]
    """The selected folder as this program knows it: its message numbers are positions here."""

    def converse(self) -> None:
        self.say("* OK The Microsoft Exchange IMAP4 service is ready.")
        while True:
            try:
                tag, name, arguments = self._command()
            except Bad:
                self.say("* BAD Command Argument Error.")
                continue
            try:
                done = self._perform(name, arguments)
            except Refused as refused:
                self.say(f"{tag} NO {refused}")
            except Full:
                self.say(f"{tag} NO [OVERQUOTA] The mailbox is full.")
            except (Bad, NoSuchItem, ValueError, LookupError, StopIteration):
                self.say(f"{tag} BAD Command Argument Error. 11")
            else:
                self.say(f"{tag} OK {done or name + ' completed.'}")
            if name == "LOGOUT":
                raise Over

    def _command(self) -> tuple[str, str, list[Argument]]:
        """Tag, name in upper case (`UID FETCH` is one name), arguments. Raises: Bad."""
        pieces: list[bytes] = []
        octets = 0
        while True:
            line = self.line()
            literal = re.search(rb"\{(\d{1,9})(\+?)\}$", line)
            if literal is None:
                break
            octets += int(literal[1])
            if octets > MAX_MESSAGE_OCTETS:
                raise Over
            if not literal[2]:
                self.say("+ Ready for additional command text.")
            pieces += [line[: literal.start()], self.octets(int(literal[1]))]
        pieces.append(line)
        arguments = parse(pieces)
        match arguments:
            case [str(tag), str(uid), str(name), *rest] if uid.upper() == "UID":
                return tag, f"UID {name.upper()}", rest
            case [str(tag), str(name), *rest]:
                return tag, name.upper(), rest
        raise Bad

    def _perform(self, name: str, arguments: list[Argument]) -> str | None:
        anytime: dict[str, Callable[[list[Argument]], str | None]] = {
            "CAPABILITY": lambda _: self.say(f"* CAPABILITY {CAPABILITIES}"),
            "NOOP": lambda _: self._news(),
            "LOGOUT": lambda _: self.say("* BYE Microsoft Exchange Server IMAP4 server signing off."),
            "ID": lambda _: self.say('* ID ("name" "mailferry practice mailbox")'),
        }
        outside = {"AUTHENTICATE": self._authenticate, "LOGIN": self._log_in}
        inside: dict[str, Callable[[list[Argument]], str | None]] = {
            "NAMESPACE": lambda _: self.say('* NAMESPACE (("" "/")) NIL NIL'),
            "LIST": lambda a: self._list("LIST", a),
            "LSUB": lambda a: self._list("LSUB", a),
            "SUBSCRIBE": lambda a: self._check_folder(a),
            "UNSUBSCRIBE": lambda a: self._check_folder(a),
            "CREATE": self._create,
            "STATUS": self._status,
            "SELECT": lambda a: self._select(a, read_only=False),
            "EXAMINE": lambda a: self._select(a, read_only=True),
            "APPEND": self._append,
            "IDLE": lambda _: self._idle(),
            "CHECK": lambda _: self._news(),
            "CLOSE": lambda _: self._close(expunged=True),
            "UNSELECT": lambda _: self._close(expunged=False),
        }
        selected: dict[str, Callable[[list[Argument], bool], str | None]] = {
            "FETCH": self._fetch,
            "STORE": self._store,
            "SEARCH": self._search,
            "COPY": self._copy,
            "MOVE": self._move,
            "EXPUNGE": self._expunge,
        }
        if name in anytime:
            return anytime[name](arguments)
        if self._mailbox is None:
            if name in outside:
                return outside[name](arguments)
        elif name in inside:
            return inside[name](arguments)
        elif self._folder is not None and name.removeprefix("UID ") in selected:
            self._news(expunged=False)
            return selected[name.removeprefix("UID ")](arguments, name.startswith("UID "))
        raise Bad

    # Before login

    def _authenticate(self, arguments: list[Argument]) -> str:
        if text(arguments[0]).upper() != "XOAUTH2":
            raise Refused("AUTHENTICATE failed.")
        if len(arguments) == 1:
            self.say("+ ")
        response = self.line() if len(arguments) == 1 else text(arguments[1]).encode()
        self._mailbox = self.mailbox_of(response)
        if self._mailbox is None:
            raise Refused("AUTHENTICATE failed.")
        return "AUTHENTICATE completed."

    def _log_in(self, _: list[Argument]) -> str:
        raise Refused("Basic authentication is disabled.")

    # Folders

    @property
    def _folders(self) -> dict[str, Folder]:
        return self.server.post_office.open(self._mailbox or "")

    def _named(self, argument: Argument) -> Folder:
        name = text(argument)
        folder = self._folders.get(INBOX if name.upper() == INBOX else name)
        if folder is None:
            raise Refused(f"[TRYCREATE] {name} doesn't exist.")
        return folder

    def _check_folder(self, arguments: list[Argument]) -> None:
        self._named(arguments[0])

    def _create(self, arguments: list[Argument]) -> None:
        name = text(arguments[0]).rstrip("/")
        if name in self._folders:
            raise Refused("Folder already exists.")
        if not name or len(name) > 255 or len(self._folders) >= 100:
            raise Refused("This folder cannot be made here.")
        self._folders[name] = Folder(name)

    def _list(self, word: str, arguments: list[Argument]) -> None:
        pattern = text(arguments[0]) + text(arguments[1])
        if pattern == "":
            self.say(f'* {word} (\\Noselect) "/" ""')
            return
        wild = "".join(".*" if c == "*" else "[^/]*" if c == "%" else re.escape(c) for c in pattern)
        for name in self._folders:
            if re.fullmatch(wild, name, re.IGNORECASE if name == INBOX else 0):
                attributes = " ".join(filter(None, (r"\HasNoChildren", SPECIAL_USE.get(name))))
                self.say(f'* {word} ({attributes}) "/" "{name}"')

    def _status(self, arguments: list[Argument]) -> None:
        folder = self._named(arguments[0])
        values = {
            "MESSAGES": len(folder.messages),
            "RECENT": 0,
            "UIDNEXT": folder.next_uid,
            "UIDVALIDITY": folder.uid_validity,
            "UNSEEN": sum(r"\Seen" not in m.flags for m in folder.messages),
        }
        asked = [item.upper() for item in listed(arguments[1])]
        shown = " ".join(f"{item} {values[item]}" for item in asked)
        self.say(f'* STATUS "{folder.name}" ({shown})')

    def _select(self, arguments: list[Argument], *, read_only: bool) -> str:
        self._folder = None
        folder = self._named(arguments[0])
        self._folder, self._view, self._read_only = folder, list(folder.messages), read_only
        self.say(
            f"* {len(self._view)} EXISTS",
            "* 0 RECENT",
            f"* FLAGS ({FLAGS})",
            f"* OK [PERMANENTFLAGS ({'' if read_only else FLAGS})] Permanent flags",
            f"* OK [UIDVALIDITY {folder.uid_validity}] UIDVALIDITY value",
            f"* OK [UIDNEXT {folder.next_uid}] The next unique identifier value",
        )
        return "[READ-ONLY] EXAMINE completed." if read_only else "[READ-WRITE] SELECT completed."

    def _close(self, *, expunged: bool) -> None:
        if expunged and self._folder is not None and not self._read_only:
            self._folder.remove({m for m in self._view if r"\Deleted" in m.flags})
        self._folder = None

    def _append(self, arguments: list[Argument]) -> str:
        folder, data, received = self._named(arguments[0]), arguments[-1], None
        if not isinstance(data, bytes):
            raise Bad
        flags = next((set(map(flag, a)) for a in arguments[1:-1] if isinstance(a, list)), set[str]())
        for date in (a for a in arguments[1:-1] if isinstance(a, str)):
            received = email.utils.parsedate_to_datetime(date.strip().replace("-", " ", 2)).astimezone(datetime.UTC)
        message = folder.add(data, flags, received)
        self._news(expunged=False)
        return f"[APPENDUID {folder.uid_validity} {message.uid}] APPEND completed."

    def _idle(self) -> str:
        self.say("+ IDLE accepted, awaiting DONE command.")
        while (line := self.line_within(IDLE_TICK_S)) is None:
            self._news()
        if line.upper() != b"DONE":
            raise Bad
        return "IDLE completed."

    def _news(self, *, expunged: bool = True) -> None:
        """Tell what changed in the selected folder. Message numbers move only where the RFC lets them (§7.5.1)."""
        if self._folder is None:
            return
        current = self._folder.messages
        if expunged:
            present = set(current)
            for n in range(len(self._view), 0, -1):
                if self._view[n - 1] not in present:
                    del self._view[n - 1]
                    self.say(f"* {n} EXPUNGE")
        known = set(self._view)
        new = [message for message in current if message not in known]
        if new:
            self._view += new
            self.say(f"* {len(self._view)} EXISTS")

    # Messages

    def _chosen(self, argument: Argument, by_uid: bool) -> list[tuple[int, Message]]:
        """Numbers and messages of a sequence set."""
        numbered = list(enumerate(self._view, 1))
        last = (self._view[-1].uid if by_uid else len(self._view)) if self._view else 0
        wanted = spans(argument, last)
        return [(n, m) for n, m in numbered if any(low <= (m.uid if by_uid else n) <= high for low, high in wanted)]

    def _fetch(self, arguments: list[Argument], by_uid: bool) -> None:
        items = [item for name in listed(arguments[1]) for item in MACROS.get(name.upper(), [name])]
        if by_uid and not any(item.upper() == "UID" for item in items):
            items.insert(0, "UID")
        for n, message in self._chosen(arguments[0], by_uid):
            shown = items
            if any(map(marks_seen, items)) and not self._read_only and r"\Seen" not in message.flags:
                message.flags.add(r"\Seen")
                shown = [*items, "FLAGS"]
            self.say(b"* %d FETCH (%s)" % (n, b" ".join(show(message, item) for item in shown)))

    def _store(self, arguments: list[Argument], by_uid: bool) -> None:
        self._check_writable()
        how = text(arguments[1]).upper()
        flags = set(map(flag, arguments[2] if isinstance(arguments[2], list) else arguments[2:]))
        for n, message in self._chosen(arguments[0], by_uid):
            kept = message.flags - flags if how.startswith("-") else message.flags | flags
            message.flags = kept if how[0] in "+-" else flags
            if not how.endswith(".SILENT"):
                items = ["UID", "FLAGS"] if by_uid else ["FLAGS"]
                self.say(b"* %d FETCH (%s)" % (n, b" ".join(show(message, item) for item in items)))

    def _search(self, arguments: list[Argument], by_uid: bool) -> None:
        if arguments and text(arguments[0]).upper() == "CHARSET":
            arguments = arguments[2:]
        found = list(enumerate(self._view, 1))
        rest = iter(arguments)
        for key in rest:
            found = self._matching(text(key), rest.__next__, found)
        self.say(" ".join(["* SEARCH", *(str(m.uid if by_uid else n) for n, m in found)]))

    def _matching(
        self, key: str, following: Callable[[], Argument], among: Sequence[tuple[int, Message]]
    ) -> list[tuple[int, Message]]:
        """One search key (RFC 9051 §6.4.4): those that mail programs really use."""
        word = key.upper()
        name = "Seen" if word == "NEW" else word.removeprefix("UN").capitalize()
        match word:
            case "ALL":
                return list(among)
            case "SEEN" | "ANSWERED" | "FLAGGED" | "DELETED" | "DRAFT":
                return [(n, m) for n, m in among if f"\\{name}" in m.flags]
            case "UNSEEN" | "UNANSWERED" | "UNFLAGGED" | "UNDELETED" | "UNDRAFT" | "NEW":
                return [(n, m) for n, m in among if f"\\{name}" not in m.flags]
            case "NOT":
                unwanted = self._matching(text(following()), following, among)
                return [pair for pair in among if pair not in unwanted]
            case "FROM" | "TO" | "CC" | "SUBJECT" | "TEXT" | "BODY":
                part = "BODY[]" if word in ("TEXT", "BODY") else f"BODY[HEADER.FIELDS ({word})]"
                sought = text(following()).casefold()
                return [(n, m) for n, m in among if sought in show(m, part).decode("utf-8", "replace").casefold()]
            case "UID":
                chosen = self._chosen(following(), True)
            case _:
                chosen = self._chosen(key, False)
        return [pair for pair in among if pair in chosen]

    def _copy(self, arguments: list[Argument], by_uid: bool) -> str:
        target, chosen = self._named(arguments[1]), self._chosen(arguments[0], by_uid)
        copies = [target.add(m.data, set(m.flags), m.received) for _, m in chosen]
        if not copies:
            return "COPY completed."
        sources, made = (",".join(str(m.uid) for m in ms) for ms in ([m for _, m in chosen], copies))
        return f"[COPYUID {target.uid_validity} {sources} {made}] COPY completed."

    def _move(self, arguments: list[Argument], by_uid: bool) -> str:
        self._check_writable()
        chosen = {m for _, m in self._chosen(arguments[0], by_uid)}
        done = self._copy(arguments, by_uid).replace("COPY completed.", "")
        if done:
            self.say(f"* OK {done}")
        self._remove(chosen)
        return "MOVE completed."

    def _expunge(self, arguments: list[Argument], by_uid: bool) -> None:
        self._check_writable()
        chosen = self._chosen(arguments[0], True) if by_uid else list(enumerate(self._view, 1))
        self._remove({m for _, m in chosen if r"\Deleted" in m.flags})

    def _remove(self, gone: set[Message]) -> None:
        if self._folder is not None:
            self._folder.remove(gone)
            self._news()

    def _check_writable(self) -> None:
        if self._read_only:
            raise Refused("The folder is open for reading only.")
