"""PURE: what a mail program said before its login, as a log may have it: every secret is left out where it stands.

What it is: a reading for each protocol, over what the front has read already. It shows what it knows, and of the rest
only that it was there: who mistypes a command may have written a password in its place. What it is not: a filter of
lines that hold secrets. The three fronts call it, for a dialogue that is watched.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.login import LoginRefused
from proxy.protocols.dialogue import SECRET, Heard, Send, printable
from proxy.protocols.imap_grammar import Command, Empty, LiteralAwaited, Reading, is_id_parameters

_SECRET = SECRET.decode()
_NO_COMMAND = "<no command>"
_MECHANISMS = frozenset(
    b"PLAIN LOGIN XOAUTH2 OAUTHBEARER CRAM-MD5 DIGEST-MD5 NTLM GSSAPI GSS-SPNEGO EXTERNAL ANONYMOUS"
    b" SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS".split()
)
_POP3_VERBS = frozenset(b"USER PASS AUTH APOP STLS CAPA QUIT NOOP STAT LIST RETR DELE RSET TOP UIDL LAST".split())
_SMTP_VERBS = frozenset(b"EHLO HELO AUTH STARTTLS MAIL RCPT DATA BDAT RSET NOOP HELP VRFY EXPN QUIT".split())


def imap(reading: Reading, known: frozenset[bytes]) -> Heard:
    """`known` are the names of commands."""
    match reading:
        case Command(tag, b"LOGIN", (login, _)):
            said = f"{tag.decode()} LOGIN {printable(login.octets)} {_SECRET}"
        case Command(tag, b"AUTHENTICATE", (mechanism, *response)):
            said = f"{tag.decode()} AUTHENTICATE {_mechanism(mechanism.octets, response)}"
        case Command(tag, b"ID", parameters) if is_id_parameters(parameters):
            said = f"{tag.decode()} ID {b' '.join(each.octets for each in parameters).decode('ascii', 'replace')}"
        case Command(tag, name, arguments) if name in known:
            said = f"{tag.decode()} {name.decode()}{f' <{len(arguments)} arguments>' if arguments else ''}"
        case LiteralAwaited(tag, name) if name in known:
            said = f"{tag.decode()} {name.decode()} <a literal>"
        case Empty():
            said = ""
        case _:
            said = _NO_COMMAND
    return Heard(said)


def pop3(line: bytes) -> Heard:
    verb, _, argument = line.partition(b" ")
    return Heard(_line(verb.upper(), argument, _POP3_VERBS, shown=(b"USER",), secret=(b"PASS", b"APOP")))


def smtp(line: bytes, *, introduces: bool) -> Heard:
    """`introduces`: the name behind EHLO may be shown; in a deferred session it could be of a mail's text."""
    verb, _, argument = line.partition(b" ")
    shown = (b"EHLO", b"HELO") if introduces else ()
    return Heard(_line(verb.upper(), argument, _SMTP_VERBS, shown=shown, secret=()))


def told(refused: LoginRefused) -> str:
    """What a mail program hears of a refusal: its invitation may hold a device code."""
    return printable(f"{_SECRET} {refused.text}" if refused.invitation else refused.text)


def send(text: str, shown: str) -> Send:
    """`shown` is what a log may have of `text`."""
    return Send(text.encode(), secret=shown != text, shown=shown.encode())


def response(line: bytes) -> Heard:
    """A line of a SASL exchange."""
    return Heard("*" if line == b"*" else _SECRET)


def _line(
    verb: bytes, argument: bytes, verbs: frozenset[bytes], *, shown: tuple[bytes, ...], secret: tuple[bytes, ...]
) -> str:
    if verb not in verbs:
        return _NO_COMMAND
    if not argument:
        return verb.decode()
    if verb == b"AUTH":
        mechanism, *responses = argument.split() or [b""]
        said = _mechanism(mechanism, responses)
    elif verb in shown:
        said = printable(argument)
    else:
        said = _SECRET if verb in secret else "..."
    return f"{verb.decode()} {said}"


def _mechanism(name: bytes, responses: Sequence[object]) -> str:
    known = name.upper() in _MECHANISMS
    return " ".join([name.decode() if known else "<no mechanism>", *(_SECRET for _ in responses)])
