"""The practice mailbox, spoken to by Python's own mail clients and, for its odd words, by hand."""

from __future__ import annotations

import base64
import email
import imaplib
import poplib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.mailbox import PracticeMailbox

ALICE, SALES, BOB = "alice@contoso.com", "sales@contoso.com", "bob@contoso.com"
TOKEN = "good.token"
PATIENCE_S = 20


class Doorkeeper:
    def user_of(self, token: str) -> str | None:
        return ALICE if token == TOKEN else None

    def may_open(self, token: str, mailbox: str) -> bool:
        return token == TOKEN and mailbox.casefold() in (ALICE, SALES)


@pytest.fixture
def certificate(tmp_path: Path) -> LocalCertificate:
    return local_certificate(tmp_path)


@pytest.fixture
def mailbox(certificate: LocalCertificate) -> Iterator[PracticeMailbox]:
    with PracticeMailbox(certificate, Doorkeeper()) as started:
        yield started


@pytest.fixture
def tls(certificate: LocalCertificate) -> ssl.SSLContext:
    return certificate.client_context()


def xoauth2(user: str = ALICE, token: str = TOKEN) -> str:
    return f"user={user}\x01auth=Bearer {token}\x01\x01"


def imap(mailbox: PracticeMailbox, tls: ssl.SSLContext, user: str = ALICE, token: str = TOKEN) -> imaplib.IMAP4_SSL:
    client = imaplib.IMAP4_SSL("localhost", mailbox.ports["imap"], ssl_context=tls, timeout=PATIENCE_S)
    client.authenticate("XOAUTH2", lambda _: xoauth2(user, token).encode())
    return client


def smtp(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> smtplib.SMTP:
    client = smtplib.SMTP("localhost", mailbox.ports["smtp"], timeout=PATIENCE_S)
    client.starttls(context=tls)
    client.ehlo()
    return client


def log_in(client: smtplib.SMTP, user: str = ALICE, token: str = TOKEN) -> None:
    client.auth("XOAUTH2", lambda _=None: xoauth2(user, token), initial_response_ok=False)


def note(text: str = "Hello.\n.dots\n..more\n", sender: str = ALICE) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "anybody@example.com", "A note"
    message.set_content(text)
    return message


class Wire:
    """A conversation by hand."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(("localhost", port), timeout=PATIENCE_S)
        self.socket = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        self.file = self.socket.makefile("rb")

    def read(self) -> str:
        return self.file.readline().decode().rstrip("\r\n")

    def ask(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.read()

    def close(self) -> None:
        self.file.close()
        self.socket.close()


# IMAP


def test_imap_reads_the_welcome(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with imap(mailbox, tls) as client:
        assert client.select("INBOX") == ("OK", [b"3"])
        _, (found,) = client.search(None, "UNSEEN")
        assert found == b"1 2 3"
        ((_, data), _) = client.fetch("1", "(RFC822)")[1]  # type: ignore[misc]
        assert isinstance(data, bytes)
        welcome = email.message_from_bytes(data, policy=default)
        assert welcome["Subject"] == "Welcome to the practice harbour"
        assert "through mailferry" in welcome.get_content()
        assert client.search(None, "UNSEEN")[1] == [b"2 3"]
        assert client.uid("SEARCH", "SUBJECT", "write")[1] == [b"2"]
        assert client.search(None, "NOT", "UID", "2:*")[1] == [b"1"]


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        ("XOAUTH2", xoauth2(token="stolen")),
        ("XOAUTH2", xoauth2(user=BOB)),
        ("XOAUTH2", "nonsense"),
        ("PLAIN", "\0alice\0password"),
    ],
)
def test_imap_opens_for_a_good_token_only(
    mailbox: PracticeMailbox, tls: ssl.SSLContext, mechanism: str, response: str
) -> None:
    wire = Wire(mailbox.ports["imap"], tls)
    assert wire.read() == "* OK The Microsoft Exchange IMAP4 service is ready."
    encoded = base64.b64encode(response.encode()).decode()
    assert wire.ask(f"a AUTHENTICATE {mechanism} {encoded}") == "a NO AUTHENTICATE failed."
    assert wire.ask("b LOGIN alice password") == "b NO Basic authentication is disabled."
    assert wire.ask("c SELECT INBOX") == "c BAD Command Argument Error. 11"
    encoded = base64.b64encode(xoauth2().encode()).decode()
    assert wire.ask(f"d AUTHENTICATE XOAUTH2 {encoded}") == "d OK AUTHENTICATE completed."
    wire.close()


def test_a_shared_mailbox_is_another_mailbox(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with imap(mailbox, tls, user=SALES) as client:
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Deleted)")
        client.expunge()
        assert client.select("INBOX") == ("OK", [b"2"])
    with imap(mailbox, tls) as client:
        assert client.select("INBOX") == ("OK", [b"3"])


def test_imap_folders(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with imap(mailbox, tls) as client:
        _, listed = client.list()
        assert rb'(\HasNoChildren \Sent) "/" "Sent Items"' in listed
        assert [line.split(b'"')[3] for line in listed if isinstance(line, bytes)] == [
            b"INBOX",
            b"Sent Items",
            b"Drafts",
            b"Deleted Items",
        ]
        assert client.list('""', "Dr%")[1] == [rb'(\HasNoChildren \Drafts) "/" "Drafts"']
        assert client.create("Archive")[0] == "OK"
        assert client.create("Archive")[0] == "NO"
        assert client.select("Nowhere")[0] == "NO"
        assert client.status("INBOX", "(MESSAGES UNSEEN UIDNEXT)")[1] == [b'"INBOX" (MESSAGES 3 UNSEEN 3 UIDNEXT 4)']
        assert client.namespace()[1] == [b'(("" "/")) NIL NIL']


def test_imap_append_copy_move_expunge(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    data = note().as_bytes().replace(b"\n", b"\r\n")
    with imap(mailbox, tls) as client:
        client.select("Drafts")
        answer, (text,) = client.append("Drafts", r"(\Draft)", '"05-Jan-2026 10:00:00 +0100"', data)
        assert answer == "OK"
        assert b"APPENDUID" in text
        ((_, back), _) = client.fetch("1", "(FLAGS INTERNALDATE BODY.PEEK[])")[1]  # type: ignore[misc]
        assert back == data
        assert client.fetch("1", "(FLAGS INTERNALDATE)")[1] == [
            rb'1 (FLAGS (\Draft) INTERNALDATE "05-Jan-2026 09:00:00 +0000")'
        ]
        client.copy("1", "Archive" if client.create("Archive")[0] == "OK" else "")
        assert client.uid("MOVE", "1", '"Deleted Items"')[0] == "OK"
        assert client.response("EXPUNGE")[1] == [b"1"]
        assert client.select("Archive") == ("OK", [b"1"])
        client.store("1", "FLAGS", r"(\Deleted)")
        assert client.expunge() == ("OK", [b"1"])
        assert client.select('"Deleted Items"', readonly=True) == ("OK", [b"1"])
        assert client.store("1", "+FLAGS", r"(\Deleted)")[0] == "NO"


def test_imap_sections_envelope_structure(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    message = note("The text.\n")
    message["Message-ID"] = "<1@contoso.com>"
    message.add_attachment(b"\0\1\2", maintype="application", subtype="octet-stream", filename="a.bin")
    message.set_boundary("cut")
    data = message.as_bytes().replace(b"\n", b"\r\n")

    def one(client: imaplib.IMAP4_SSL, item: str) -> bytes:
        ((_, value), _) = client.fetch("1", f"({item})")[1]  # type: ignore[misc]
        assert isinstance(value, bytes)
        return value

    with imap(mailbox, tls) as client:
        client.append("Drafts", "", "", data)
        client.select("Drafts")
        head, _, text = data.partition(b"\r\n\r\n")
        assert one(client, "BODY.PEEK[HEADER]") == head + b"\r\n\r\n"
        assert one(client, "BODY.PEEK[TEXT]") == text
        assert one(client, "BODY.PEEK[]<5.10>") == data[5:15]
        assert one(client, "BODY.PEEK[HEADER.FIELDS (SUBJECT X-NO)]") == b"Subject: A note\r\n\r\n"
        assert one(client, "BODY.PEEK[1]") == b"The text.\r\n"
        assert one(client, "BODY.PEEK[2]") == b"AAEC\r\n"
        assert b"Content-Type: application/octet-stream\r\n" in one(client, "BODY.PEEK[2.MIME]")
        assert client.fetch("1", "(ENVELOPE)")[1] == [
            b'1 (ENVELOPE (NIL "A note" ((NIL NIL "alice" "contoso.com")) ((NIL NIL "alice" "contoso.com"))'
            b' ((NIL NIL "alice" "contoso.com")) ((NIL NIL "anybody" "example.com")) NIL NIL NIL "<1@contoso.com>"))'
        ]
        assert client.fetch("1", "(BODYSTRUCTURE)")[1] == [
            b'1 (BODYSTRUCTURE (("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 11 1)'
            b'("application" "octet-stream" NIL NIL NIL "base64" 6) "mixed"))'
        ]


def test_imap_idle_hears_of_a_message(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    wire = Wire(mailbox.ports["imap"], tls)
    wire.read()
    wire.ask(f"a AUTHENTICATE XOAUTH2 {base64.b64encode(xoauth2().encode()).decode()}")
    assert wire.ask("b SELECT INBOX") == "* 3 EXISTS"
    while not wire.read().startswith("b OK"):
        pass
    assert wire.ask("c IDLE").startswith("+ ")
    mailbox.post_office.deliver(ALICE, b"Subject: now\r\n\r\nnow\r\n")
    assert wire.read() == "* 4 EXISTS"
    assert wire.ask("DONE") == "c OK IDLE completed."
    assert wire.ask("d LOGOUT").startswith("* BYE")
    wire.close()


@pytest.mark.parametrize(
    "line",
    ["", "a", "a FETCH", "a FETCH 1 BODY[NONSENSE]", "a FETCH x FLAGS", "a SEARCH UID", "a )(", "a STATUS (a) b"],
)
def test_imap_survives_nonsense(mailbox: PracticeMailbox, tls: ssl.SSLContext, line: str) -> None:
    with imap(mailbox, tls) as client:
        client.select("INBOX")
        client.send(line.encode() + b"\r\n")
        assert b" BAD " in client.readline()
        assert client.noop()[0] == "OK"


# SMTP and POP3


def test_what_is_sent_arrives(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with smtp(mailbox, tls) as client:
        assert client.has_extn("AUTH")
        log_in(client)
        assert client.send_message(note()) == {}
    pop = poplib.POP3_SSL("localhost", mailbox.ports["pop3"], context=tls, timeout=PATIENCE_S)
    assert pop.welcome == b"+OK The Microsoft Exchange POP3 service is ready."
    pop._shortcmd("AUTH XOAUTH2")  # type: ignore[attr-defined]
    pop._shortcmd(base64.b64encode(xoauth2().encode()).decode())  # type: ignore[attr-defined]
    assert pop.stat()[0] == 4
    _, lines, _ = pop.retr(4)
    back = email.message_from_bytes(b"\r\n".join(lines), policy=default)
    assert back["Subject"] == "A note"
    assert back.get_content() == "Hello.\r\n.dots\r\n..more"  # POP3 carries lines, not their last end
    _, top, _ = pop.top(4, 1)
    assert top[-1] == b"Hello."
    assert len({line.split()[1] for line in pop.uidl()[1]}) == 4
    pop.dele(4)
    assert pop.stat()[0] == 3
    with pytest.raises(poplib.error_proto, match="out of range"):
        pop.retr(4)
    pop.quit()
    with imap(mailbox, tls) as reader:
        assert reader.select("INBOX") == ("OK", [b"3"])
        assert reader.select('"Sent Items"') == ("OK", [b"1"])


def test_pop3_speaks_as_exchange(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    wire = Wire(mailbox.ports["pop3"], tls)
    wire.read()
    assert wire.ask("USER alice") == "+OK"
    assert wire.ask("PASS secret") == "-ERR Logon failure: unknown user name or bad password."
    assert wire.ask("STAT") == "-ERR Command is not valid in this state."
    assert wire.ask("AUTH XOAUTH2") == "+ "
    wrong = base64.b64encode(xoauth2(token="stolen").encode()).decode()
    assert wire.ask(wrong) == "-ERR Authentication failure: unknown user name or bad password."
    right = base64.b64encode(xoauth2().encode()).decode()
    assert wire.ask(f"AUTH XOAUTH2 {right}") == "-ERR Protocol error. Connection is closed. 10"
    assert wire.read() == ""
    wire.close()


def test_smtp_speaks_as_exchange(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with smtplib.SMTP("localhost", mailbox.ports["smtp"], timeout=PATIENCE_S) as plain:
        plain.ehlo()
        assert not plain.has_extn("AUTH")
        assert plain.docmd("AUTH", "XOAUTH2")[0] == 504
    with smtp(mailbox, tls) as client:
        assert not client.has_extn("STARTTLS")
        assert client.mail(ALICE)[1].startswith(b"5.7.57")
        for user, token in ((ALICE, "stolen"), (SALES, TOKEN)):  # SMTP takes the UPN alone (FACTS 2.6)
            with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
                log_in(client, user, token)
            assert str(caught.value).startswith("(535, b'5.7.3 Authentication unsuccessful")
        assert client.docmd("AUTH", "LOGIN")[0] == 504
        log_in(client)
        client.mail(SALES)
        assert client.rcpt("x@example.com")[0] == 250
        assert client.data(b"Subject: shared\n\nAs the team.\n")[0] == 250
        with pytest.raises(smtplib.SMTPDataError, match=r"SendAsDenied"):
            client.send_message(note(sender=BOB))


def test_what_is_sent_in_clear_behind_starttls_is_dropped(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    wire = Wire(mailbox.ports["smtp"], None)
    wire.read()
    wire.socket.sendall(b"STARTTLS\r\nNOOP\r\n")
    assert wire.read() == "220 2.0.0 SMTP server ready"
    secure = tls.wrap_socket(wire.socket, server_hostname="localhost")
    secure.sendall(b"HELO x\r\n")
    assert secure.recv(1000) == b"250 localhost Hello [127.0.0.1]\r\n"
    secure.close()
    wire.close()


def test_smtp_offers_what_it_does(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    both = {"size", "pipelining", "enhancedstatuscodes", "8bitmime", "binarymime", "chunking", "smtputf8"}
    with smtplib.SMTP("localhost", mailbox.ports["smtp"], timeout=PATIENCE_S) as client:
        client.ehlo()
        assert client.esmtp_features.keys() == both | {"starttls"}
        client.starttls(context=tls)
        client.ehlo()
        assert client.esmtp_features.keys() == both | {"auth"}
        assert client.esmtp_features["auth"].split() == ["XOAUTH2"]


def test_a_message_in_chunks_arrives_octet_for_octet(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    chunks = [b"Subject: raw\r\n\r\n.\r\nQUIT\r\n", b"\0\n\xff", b""]
    with smtp(mailbox, tls) as client:
        log_in(client)
        client.mail(ALICE, ["BODY=BINARYMIME"])
        client.rcpt("x@example.com")
        assert client.docmd("DATA")[0] == 503, "binary mail comes in chunks alone (RFC 3030 §3)"
        answers = []
        for n, chunk in enumerate(chunks, 1):
            client.send(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if n == len(chunks) else b"") + chunk)
            answers.append(client.getreply()[0])
        assert answers == [250, 250, 250]
    with imap(mailbox, tls) as reader:
        reader.select("INBOX")
        ((_, data), _) = reader.fetch("4", "(BODY.PEEK[])")[1]  # type: ignore[misc]
        assert isinstance(data, bytes)
        received, _, rest = data.partition(b"\r\n")
        assert received.startswith(b"Received: from [127.0.0.1]")
        assert rest == b"".join(chunks)


def test_chunks_without_an_envelope_are_read_and_refused(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    with smtp(mailbox, tls) as client:
        log_in(client)
        client.send(b"BDAT 6 LAST\r\nQUIT\r\n")
        assert client.getreply()[0] == 503
        assert client.noop()[0] == 250
        client.mail(ALICE)
        client.rcpt("x@example.com")
        client.send(b"BDAT 2\r\nab")
        assert client.getreply()[0] == 250
        assert client.docmd("DATA")[0] == 503, "chunks and DATA do not mix (RFC 3030 §2)"
        client.rset()
        assert client.docmd("BDAT", "two")[0] == 501
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()


@pytest.mark.parametrize("how", ["size", "data", "bdat"])
def test_smtp_takes_no_message_that_is_too_large(
    mailbox: PracticeMailbox, tls: ssl.SSLContext, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.demo.smtp_server.MAX_MESSAGE_OCTETS", 1000)
    body = b"x" * 998 + b"\r\n" + b"y\r\n"
    with smtp(mailbox, tls) as client:
        log_in(client)
        if how == "size":
            assert client.docmd(f"MAIL FROM:<{ALICE}> SIZE=1001")[0] == 552
            return
        client.docmd(f"MAIL FROM:<{ALICE}>")
        client.rcpt("x@example.com")
        if how == "data":
            assert client.data(body)[0] == 552
        else:
            client.send(b"BDAT %d LAST\r\n" % len(body) + body)
            assert client.getreply()[0] == 552
        assert client.noop()[0] == 250


@pytest.mark.parametrize("parameters", ["BODY=9BIT", "SIZE=big"])
def test_smtp_refuses_parameters_that_it_cannot_read(
    mailbox: PracticeMailbox, tls: ssl.SSLContext, parameters: str
) -> None:
    with smtp(mailbox, tls) as client:
        log_in(client)
        assert client.docmd(f"MAIL FROM:<{ALICE}> {parameters}")[0] == 501
        assert client.docmd(f"MAIL FROM:<{ALICE}> SMTPUTF8 BODY=8bitmime SIZE=20")[0] == 250


def test_pop3_in_full(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    pop = poplib.POP3_SSL("localhost", mailbox.ports["pop3"], context=tls, timeout=PATIENCE_S)
    assert pop.capa() == {"TOP": [], "UIDL": [], "SASL": ["XOAUTH2"], "USER": []}
    pop._shortcmd("AUTH XOAUTH2")  # type: ignore[attr-defined]
    pop._shortcmd(base64.b64encode(xoauth2().encode()).decode())  # type: ignore[attr-defined]
    count, octets = pop.stat()
    sizes = [int(line.split()[1]) for line in pop.list()[1]]
    assert (len(sizes), sum(sizes)) == (count, octets)
    assert pop._shortcmd("LIST 2") == f"+OK 2 {sizes[1]}".encode()  # type: ignore[attr-defined]
    assert pop.uidl(2) == b"+OK " + pop.uidl()[1][1]
    assert pop.capa()["TOP"] == []
    pop.dele(1)
    assert [line.split()[0] for line in pop.list()[1]] == [b"2", b"3"]
    pop.rset()
    assert pop.stat() == (count, octets)
    assert pop.noop() == b"+OK"
    with pytest.raises(poplib.error_proto, match="Protocol error"):
        pop._shortcmd("XTND")  # type: ignore[attr-defined]
    pop.dele(1)
    pop.close()
    with imap(mailbox, tls) as reader:
        assert reader.select("INBOX") == ("OK", [b"3"]), "without QUIT nothing is deleted (RFC 1939 §6)"


def test_pop3_may_be_left_before_login(mailbox: PracticeMailbox, tls: ssl.SSLContext) -> None:
    pop = poplib.POP3_SSL("localhost", mailbox.ports["pop3"], context=tls, timeout=PATIENCE_S)
    assert pop.quit() == b"+OK Microsoft Exchange Server POP3 server signing off."
