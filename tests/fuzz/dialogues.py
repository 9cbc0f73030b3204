"""The harnesses of `proxy/protocols`: the six dialogues, IMAP's two readers, and SASL.

What each makes of an input: `case.py` says how it is read. What must hold: `conversation.py` for the dialogues, and
here for the rest. A harness returns when all holds, and raises otherwise.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import cycle, islice

from proxy.login import Bearer, Credentials
from proxy.protocols import (
    PROTOCOLS,
    imap_front,
    imap_grammar,
    imap_upstream,
    pop3_front,
    pop3_upstream,
    sasl,
    smtp_front,
    smtp_upstream,
)
from proxy.protocols.dialogue import (
    PRINTABLE_TEXT_OCTETS,
    Close,
    FrontSettings,
    InputBuffer,
    LineTooLong,
    Login,
    Ready,
    Send,
    UpstreamSettings,
)
from proxy.protocols.imap_grammar import Command, CommandReader, LiteralAwaited, Reading, Response, ResponseReader
from tests.fuzz.case import BEARER, MAX_SPEECH_OCTETS, PASSWORD, PLAIN_RESPONSE, SHORT_SPEECH_OCTETS, Case, spoken_token
from tests.fuzz.conversation import LINES, MAX_OCTET_PIECES, Subject, leaks, lines_of, play
from tests.fuzz.weighing import held_octets

OFFERS_TLS, TLS_ACTIVE, REQUIRES_TLS, DEFERS_FAILURES = 0x01, 0x02, 0x04, 0x08  # a front's settings
LEARNT, IMPLICIT_ACCOUNT = 0x30, 0x40
STARTTLS, ODD_HOSTNAME = 0x01, 0x02  # an upstream's
ABANDONS = 0x01  # a reader's: a command whose literal needs a go-ahead is refused

_LEARNT = (
    (),
    ("IMAP4rev1", "IDLE", "SIZE 1000", "8BITMIME", "AUTH XOAUTH2"),
    ("SIZE", "PIPELINING", "X-ODD a b", "LITERAL+"),
    ("STARTTLS", "AUTH=X"),
)

# By their names, what a dialogue may hold of its peer's words between two inputs
_HELD_OCTETS = {
    ("imap", "front"): sasl.MAX_RESPONSE_OCTETS
    + 2 * (imap_grammar.MAX_COMMAND_OCTETS + imap_grammar.MAX_COMMAND_LINE_OCTETS),  # arguments, and how many
    ("imap", "upstream"): 2 * imap_grammar.MAX_RESPONSE_OCTETS  # one that comes in, one as a challenge
    + imap_upstream.MAX_UNTAGGED_OCTETS
    + imap_upstream.MAX_CAPABILITIES * 64,
    ("pop3", "front"): sasl.MAX_RESPONSE_OCTETS + 2 * pop3_front.MAX_COMMAND_OCTETS,
    ("pop3", "upstream"): 2 * pop3_upstream.MAX_REPLY_OCTETS,
    ("smtp", "front"): 2 * sasl.MAX_RESPONSE_OCTETS + smtp_front.MAX_COMMAND_OCTETS,
    ("smtp", "upstream"): (2 + smtp_upstream.MAX_REPLY_LINES) * smtp_upstream.MAX_REPLY_LINE_OCTETS,
}


def front_harness(protocol: str) -> Callable[[bytes], None]:
    """The mail program's side of this protocol."""
    subject = Subject(partial(_make_front, protocol), _HELD_OCTETS[protocol, "front"], is_front=True)

    def harness(octets: bytes) -> None:
        play(subject, Case.read(octets, secret=PASSWORD, encoded=PLAIN_RESPONSE))

    return harness


def upstream_harness(protocol: str) -> Callable[[bytes], None]:
    """Exchange's side of this protocol; what it comes to is handed to a front."""
    subject = Subject(
        partial(_make_upstream, protocol),
        _HELD_OCTETS[protocol, "upstream"],
        is_front=False,
        hands_over=partial(_hand_over, protocol),
    )

    speech_octets = MAX_SPEECH_OCTETS if protocol == "imap" else SHORT_SPEECH_OCTETS
    read = partial(Case.read, secret=BEARER.token.encode(), encoded=spoken_token(), speech_octets=speech_octets)

    def harness(octets: bytes) -> None:
        play(subject, read(octets))

    return harness


def _make_front(protocol: str, case: Case) -> imap_front.ImapFront | pop3_front.Pop3Front | smtp_front.SmtpFront:
    made = PROTOCOLS[protocol].front(
        FrontSettings(
            hostname="mail.test",
            offers_tls=bool(case.settings & OFFERS_TLS),
            tls_active=bool(case.settings & TLS_ACTIVE),
            requires_tls=bool(case.settings & REQUIRES_TLS),
            defers_failures=bool(case.settings & DEFERS_FAILURES),
            implicit_account=bool(case.settings & IMPLICIT_ACCOUNT),
            learnt=_LEARNT[(case.settings & LEARNT) >> 4],
        )
    )
    assert isinstance(made, imap_front.ImapFront | pop3_front.Pop3Front | smtp_front.SmtpFront)
    return made


def _make_upstream(
    protocol: str, case: Case
) -> imap_upstream.ImapUpstream | pop3_upstream.Pop3Upstream | smtp_upstream.SmtpUpstream:
    hostname = "not a\r\nname" if case.settings & ODD_HOSTNAME else "mail.test"
    made = PROTOCOLS[protocol].upstream(UpstreamSettings(BEARER, bool(case.settings & STARTTLS), hostname))
    assert isinstance(made, imap_upstream.ImapUpstream | pop3_upstream.Pop3Upstream | smtp_upstream.SmtpUpstream)
    return made


_LOGINS = {
    "imap": (b"c CAPABILITY\r\n", b"a LOGIN u p\r\n"),
    "pop3": (b"CAPA\r\n", b"USER u\r\nPASS p\r\n"),
    "smtp": (b"EHLO c\r\n", b"AUTH PLAIN AHUAcA==\r\n"),
}


def _hand_over(protocol: str, ready: Ready, *, token_known: bool) -> None:
    """What upstream came to, told to the mail program that waits, and promised to the next one."""
    for learnt in ((), ready.capabilities):
        settings = FrontSettings("mail.test", False, False, False, False, learnt=learnt)
        front = PROTOCOLS[protocol].front(settings)
        asked, login = _LOGINS[protocol]
        actions = front.opened() + front.received(asked)
        awaited = front.received(login)
        assert isinstance(awaited[-1], Login)
        for action in [*actions, *awaited[:-1], *front.accept(ready)]:
            assert isinstance(action, Send | Close)
            if isinstance(action, Send):
                own = action.data.removesuffix(ready.untagged)
                assert LINES.fullmatch(own), "not whole lines of printable ASCII"
                assert not (token_known and leaks(action.data, front=False)), "a token told to the mail program"
    assert ready.untagged == b"" or ready.untagged.endswith(b"\r\n")
    assert len(ready.text) <= PRINTABLE_TEXT_OCTETS


# --- IMAP's readers

WEIGHED_PIECES = 64  # what a reader holds is weighed once in so many
_TAG = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\+]{1,64}")
_NAME = re.compile(rb"[!-`{-~]+")


def read_commands(octets: bytes) -> None:
    """`CommandReader`: the same readings however the octets are cut, within its bounds, and each well-formed."""
    case = Case.read(octets, secret=PASSWORD, encoded=PLAIN_RESPONSE, speech_octets=MAX_SPEECH_OCTETS)
    readings = _commands_in(_cut(case), case)
    assert readings == _commands_in([case.speech], case)
    for reading in readings:
        assert PASSWORD.decode() not in repr(reading)
        if not isinstance(reading, Command):
            continue
        assert _TAG.fullmatch(reading.tag)
        assert _NAME.fullmatch(reading.name)
        sizes = [len(argument.octets) for argument in reading.arguments]
        assert sum(sizes) <= imap_grammar.MAX_COMMAND_OCTETS
        # Each way to write an argument means the same: what was read is read again from literals.
        if reading.name != b"ID" and max(sizes, default=0) <= imap_grammar.MAX_LITERAL_OCTETS and sum(sizes) < 8_000:
            written = b"".join(b" {%d+}\r\n%b" % (len(each.octets), each.octets) for each in reading.arguments)
            [again] = _commands_in([b"a " + reading.name + written + b"\r\n"], case)
            assert isinstance(again, Command)
            assert again.name == reading.name
            assert [each.octets for each in again.arguments] == [each.octets for each in reading.arguments]


def _commands_in(pieces: Iterable[bytes], case: Case) -> list[Reading | str]:
    source = InputBuffer()
    reader = CommandReader(source)
    readings: list[Reading | str] = []
    for number, piece in enumerate(pieces):
        source.feed(piece)
        try:
            while (reading := reader.next()) is not None:
                readings.append(reading)
                if isinstance(reading, LiteralAwaited) and case.settings & ABANDONS:
                    reader.abandon()
        except LineTooLong:
            return [*readings, "line too long"]
        assert len(source) <= imap_grammar.MAX_COMMAND_LINE_OCTETS
        if number % WEIGHED_PIECES == 0:
            assert held_octets(reader) <= _HELD_OCTETS["imap", "front"]
    return readings


def read_responses(octets: bytes) -> None:
    """`ResponseReader`: the same responses however the octets are cut, whole, and in their order."""
    case = Case.read(octets, secret=BEARER.token.encode(), encoded=spoken_token(), speech_octets=MAX_SPEECH_OCTETS)
    responses = _responses_in(_cut(case))
    assert responses == _responses_in([case.speech])
    whole = b"".join(each.octets for each in responses if isinstance(each, Response))
    assert case.speech.translate(None, b"\r\n").startswith(whole.translate(None, b"\r\n"))
    for each in responses:
        if isinstance(each, Response):
            assert each.octets.endswith(b"\r\n")
            assert len(each.octets) <= imap_grammar.MAX_RESPONSE_OCTETS + 2
            assert each.octets[:-2].startswith(each.tag)
            assert each.octets[:-2].endswith(each.text)


def _responses_in(pieces: Iterable[bytes]) -> list[Response | str]:
    source = InputBuffer()
    reader = ResponseReader(source)
    responses: list[Response | str] = []
    for number, piece in enumerate(pieces):
        source.feed(piece)
        try:
            while (response := reader.next()) is not None:
                responses.append(response)
        except LineTooLong:
            return [*responses, "line too long"]
        if number % WEIGHED_PIECES == 0:
            assert held_octets(reader) <= 2 * imap_grammar.MAX_RESPONSE_OCTETS
    return responses


def _cut(case: Case) -> Iterator[bytes]:
    start, least = 0, -(-len(case.speech) // MAX_OCTET_PIECES)
    for length in cycle(case.lengths):
        if start >= len(case.speech):
            return
        stop = start + max(least, length)
        yield case.speech[start:stop]
        start = stop


# --- SASL

MAX_RESPONSES = 16  # of one input
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def answer_sasl(octets: bytes) -> None:
    """`sasl`: strict base64 or `BadResponse`; every mechanism comes to credentials in as many steps as it has."""
    case = Case.read(octets, secret=PASSWORD, encoded=PLAIN_RESPONSE)
    decoded: list[bytes | None] = [None]
    for line in islice(lines_of(case.speech), MAX_RESPONSES):
        text = line.rstrip(b"\r\n")
        read = _decoded(sasl.decode, text)
        assert (read is not None) == bool(_BASE64.fullmatch(text)), "base64 is strict"
        assert _decoded(sasl.initial, text) == (b"" if text == b"=" else read)
        assert sasl.decode(base64.b64encode(line)) == line
        decoded.append(line if read is None else read)
    for mechanism in sasl.MECHANISMS.values():
        for start in range(len(decoded)):
            exchange = mechanism()
            step = exchange.start(decoded[start])
            for response in [*(each for each in decoded[start + 1 :] if each is not None), b"", b""][:2]:
                if isinstance(step, Credentials):
                    break
                assert step.data in (b"", sasl.USERNAME_PROMPT, sasl.PASSWORD_PROMPT)
                step = exchange.next(response)
            assert isinstance(step, Credentials)
            beside = step.login + step.authorization_id
            assert PASSWORD.decode() not in repr(step) or PASSWORD in beside
    user = case.speech.decode("latin-1")
    assert sasl.decode(sasl.xoauth2(Bearer(user, "t"))).decode() == f"user={user}\x01auth=Bearer t\x01\x01"


def _decoded(decode: Callable[[bytes], bytes], text: bytes) -> bytes | None:
    try:
        return decode(text)
    except sasl.BadResponse:
        return None
