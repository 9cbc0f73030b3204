"""PURE: the grammar of IMAP before login (RFC 9051 §9, RFC 7888): commands on our side, responses on Exchange's.

What it is: two readers over an `InputBuffer`. `CommandReader` gives whole commands; a literal interrupts it, and it
then says what it awaits. `ResponseReader` gives whole responses, literals included. Both are incremental (any cut of
the octets gives the same result), linear in time and bounded in memory.

What it is not: it answers nobody and knows no state of a login. `imap_front.py` and `imap_upstream.py` call it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.protocols.dialogue import InputBuffer, LineTooLong

MAX_COMMAND_LINE_OCTETS = 8_192  # Dovecot's limit (CLIENTS 1.1)
MAX_LITERAL_OCTETS = 1_024  # a login, a password (CLIENTS 1.2), or a value of ID (RFC 2971 §3.3)
MAX_COMMAND_OCTETS = 65_536  # ID's 30 pairs of 30 and 1,024 octets (RFC 2971 §3.3), and as much again
MAX_NUMBER_DIGITS = 10  # number is 32 bits wide (RFC 9051 §9)
MAX_ID_PAIRS = 30  # RFC 2971 §3.3
MAX_ID_KEY_OCTETS = 30  # RFC 2971 §3.3
MAX_RESPONSE_OCTETS = 65_536  # before we hand over, Exchange's longest is below 1 KiB (FACTS 2.2)

# tag = 1*<any ASTRING-CHAR except "+">; we take 64 octets of it (CLIENTS 1.2)
_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]{1,64}(?= |\Z)")
_NAME = re.compile(rb" +([!#-z|}~][!-~]*)(?= |\Z)")

# quoted = DQUOTE *QUOTED-CHAR DQUOTE; literal = "{" number ["+"] "}" CRLF *CHAR8. An atom is wider than the RFC's:
# an unquoted password may be `pa$$%*` or end in `{1}` (CLIENTS 1.2), so only its first octet decides what it is.
_STRING = rb'"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"|\{(?P<number>[0-9]+)(?P<plus>\+?)\}\Z'
_ARGUMENT = re.compile(rb' +(?:%b|(?P<atom>[^ "{][^ ]*))(?= |\Z)' % _STRING)
_ID_ARGUMENT = re.compile(rb' *(?:%b|(?P<atom>[()]|[^ "{()][^ ()]*))' % _STRING)
_ESCAPE = re.compile(rb"\\(.)")

_NON_SYNCHRONIZING = re.compile(rb"\{[0-9]+\+\} *\Z")
_CONTROL = re.compile(rb"[\0\r]")  # a CR within a line, or a NUL (CLIENTS 1.1)
# The third line of a PROXY v2 header, CRLF CRLF NUL CRLF QUIT LF, is a lone NUL.
_FOREIGN = re.compile(rb"(?P<http>[A-Z]+ [^ ]+ HTTP/[0-9])|(?P<proxy_header>PROXY (?:TCP[46]|UNKNOWN)|\0\Z)")

# Data that may hold literals, unlike `* OK ...`, whose text may end in anything.
_DATA = re.compile(rb"\* (?!(?:OK|NO|BAD|BYE|PREAUTH)(?: |\Z))", re.IGNORECASE)
_DATA_LITERAL = re.compile(rb"\{([0-9]+)\}\Z")


class Form(enum.Enum):
    ATOM = "atom"
    QUOTED = "quoted"
    LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command. Its octets may be a password and are not printed."""

    octets: bytes = field(repr=False)
    form: Form = Form.ATOM
    verbatim: bytes | None = field(default=None, repr=False)
    """What stood between the quotes, if a lone backslash was among it: `DOMAIN\\user` is sent so (CLIENTS 1.2)."""


@dataclass(frozen=True, slots=True)
class Command:
    tag: bytes
    name: bytes
    """In upper case."""
    arguments: tuple[Argument, ...] = ()


@dataclass(frozen=True, slots=True)
class LiteralAwaited:
    """The client waits for a go-ahead before it sends a literal: say `+ `, or `abandon` the command and refuse it."""

    tag: bytes
    name: bytes


@dataclass(frozen=True, slots=True)
class LiteralTooLong:
    """A literal beyond `MAX_LITERAL_OCTETS`; a client that does not synchronize sends it all the same."""

    tag: bytes
    synchronizing: bool


@dataclass(frozen=True, slots=True)
class Empty:
    """An empty line."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no command."""

    tag: bytes | None
    """None: it has no valid tag either."""
    in_step: bool = True
    """False: octets of a literal follow, which must not be read as commands."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A line of another protocol."""

    protocol: str
    """`http` or `proxy_header`."""


Reading = Command | LiteralAwaited | LiteralTooLong | Empty | Malformed | Foreign


class CommandReader:
    """Takes commands from a buffer; what stands behind a command it leaves there."""

    def __init__(self, source: InputBuffer) -> None:
        self._source = source
        self._tag = b""
        self._name = b""
        self._arguments: list[Argument] | None = None
        """Those of the command that a literal interrupted; None: the next line begins a command."""
        self._literal_octets: int | None = None
        """The length of the literal that comes next."""
        self._command_octets = 0

    def next(self) -> Reading | None:
        """The next reading; None if it does not stand complete in the buffer yet.

        Raises:
            LineTooLong: a line, or a command with its literals, outgrew its bound.
        """
        while True:
            if self._literal_octets is not None:
                if len(self._source) < self._literal_octets:
                    return None
                self._take_literal(self._literal_octets)
            line = self._source.line(MAX_COMMAND_LINE_OCTETS)
            if line is None:
                return None
            reading = self._head(line) if self._arguments is None else self._tail(line, 0, self._arguments)
            if reading is not None:
                if not isinstance(reading, LiteralAwaited):
                    self.abandon()
                return reading

    def abandon(self) -> None:
        """Forget the unfinished command: it is refused, and the client will not send its literal."""
        self._arguments = None
        self._literal_octets = None
        self._command_octets = 0

    def _take_literal(self, octets: int) -> None:
        assert self._arguments is not None
        self._arguments.append(Argument(self._source.take(octets), Form.LITERAL))
        self._literal_octets = None
        self._count(octets)

    def _count(self, octets: int) -> None:
        self._command_octets += octets
        if self._command_octets > MAX_COMMAND_OCTETS:
            raise LineTooLong(MAX_COMMAND_OCTETS)

    def _head(self, line: bytes) -> Reading | None:
        if not line:
            return Empty()
        if foreign := _FOREIGN.match(line):
            return Foreign(str(foreign.lastgroup))
        tag = _TAG.match(line)
        if tag is None:
            return self._malformed(None, line)
        name = _NAME.match(line, tag.end())
        if name is None:
            return self._malformed(tag[0], line)
        self._tag, self._name, self._arguments = tag[0], name[1].upper(), []
        return self._tail(line, name.end(), self._arguments)

    def _tail(self, line: bytes, position: int, arguments: list[Argument]) -> Reading | None:
        """Read arguments from `position` on; None if a literal follows that needs no go-ahead."""
        self._count(len(line))
        if _CONTROL.search(line):
            return self._malformed(self._tag, line)
        pattern = _ID_ARGUMENT if self._name == b"ID" else _ARGUMENT
        end = len(line.rstrip(b" "))
        while position < end:
            token = pattern.match(line, position, end)
            if token is None:
                return self._malformed(self._tag, line)
            if token["number"] is not None:
                return self._literal(token["number"], synchronizing=not token["plus"])
            arguments.append(Argument(token["atom"]) if token["quoted"] is None else _unquote(token["quoted"]))
            position = token.end()
        return Command(self._tag, self._name, tuple(arguments))

    def _literal(self, number: bytes, *, synchronizing: bool) -> Reading | None:
        if len(number) > MAX_NUMBER_DIGITS or int(number) > MAX_LITERAL_OCTETS:
            return LiteralTooLong(self._tag, synchronizing)
        self._literal_octets = int(number)
        return LiteralAwaited(self._tag, self._name) if synchronizing else None

    def _malformed(self, tag: bytes | None, line: bytes) -> Malformed:
        return Malformed(tag, in_step=_NON_SYNCHRONIZING.search(line) is None)


def _unquote(quoted: bytes) -> Argument:
    lone = any(escape[1] not in (b'"', b"\\") for escape in _ESCAPE.finditer(quoted))
    return Argument(_ESCAPE.sub(rb"\1", quoted), Form.QUOTED, quoted if lone else None)


def is_id_parameters(arguments: Sequence[Argument]) -> bool:
    """True for ID's argument, NIL or a list of pairs within the bounds of RFC 2971 §3.3."""
    if len(arguments) < 2:
        return [(a.form, a.octets.upper()) for a in arguments] == [(Form.ATOM, b"NIL")]
    *pairs, last = arguments[1:]
    return (
        (arguments[0].form, arguments[0].octets) == (Form.ATOM, b"(")
        and (last.form, last.octets) == (Form.ATOM, b")")
        and len(pairs) % 2 == 0
        and len(pairs) <= 2 * MAX_ID_PAIRS
        and not any(a.form is Form.ATOM and a.octets in (b"(", b")") for a in pairs)
        and all(len(key.octets) <= MAX_ID_KEY_OCTETS for key in pairs[::2])
        and all(len(value.octets) <= MAX_LITERAL_OCTETS for value in pairs[1::2])
    )


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a server, `tag word text`."""

    tag: bytes
    """`*`, `+`, or the tag of the command that it completes."""
    word: bytes
    """The first word after the tag, in upper case: `OK`, `NO`, `BAD`, `BYE`, `CAPABILITY`, a number..."""
    text: bytes
    """All that follows the word and a space."""
    octets: bytes
    """The whole of it with its last CRLF."""

    @property
    def argument(self) -> bytes:
        """All that follows the tag and a space: a SASL challenge after `+`."""
        return self.octets[:-2].partition(b" ")[2]


class ResponseReader:
    """Takes responses from a buffer; a literal within untagged data is part of its response."""

    def __init__(self, source: InputBuffer) -> None:
        self._source = source
        self._begun = bytearray()
        """The response so far, up to the literal that interrupted it."""
        self._literal_octets: int | None = None

    def next(self) -> Response | None:
        """The next response; None if it does not stand complete in the buffer yet.

        Raises:
            LineTooLong: a response outgrew `MAX_RESPONSE_OCTETS`.
        """
        while True:
            if self._literal_octets is not None:
                if len(self._source) < self._literal_octets:
                    return None
                self._begun += self._source.take(self._literal_octets)
                self._literal_octets = None
            line = self._source.line(MAX_RESPONSE_OCTETS - len(self._begun))
            if line is None:
                return None
            self._begun += line + b"\r\n"
            number = _DATA_LITERAL.search(line) if _DATA.match(self._begun) else None
            if number is None:
                octets = bytes(self._begun)
                self._begun.clear()
                tag, _, rest = octets[:-2].partition(b" ")
                word, _, text = rest.partition(b" ")
                return Response(tag, word.upper(), text, octets)
            if len(number[1]) > MAX_NUMBER_DIGITS or len(self._begun) + int(number[1]) > MAX_RESPONSE_OCTETS:
                raise LineTooLong(MAX_RESPONSE_OCTETS)
            self._literal_octets = int(number[1])
