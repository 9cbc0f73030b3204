"""Plays a case on a dialogue, and judges it: what must hold whatever the other side says.

What it is: the network and the session around one dialogue, and the invariants. What it is not: an expectation of
particular answers; the scripts of `tests/dialogues` have those. Called by `targets.py`.

Each case is played three times: line by line; in pieces of odd lengths; and all at once. The first two must say the
same. A STARTTLS in the middle makes the cut visible, since what stands behind it in one piece is an injection; so the
second play is cut where the first one started TLS. It counts its steps where the case says so, as counting is slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import cast

from proxy.login import Fault, LoginRefused, Refusal
from proxy.protocols.dialogue import (
    PRINTABLE_TEXT_OCTETS,
    Action,
    Close,
    ExpireIn,
    Failed,
    Front,
    Login,
    Ready,
    Send,
    StartTLS,
    Upstream,
)
from tests.fuzz.case import BEARER, PASSWORD, Case, spoken_token
from tests.fuzz.weighing import CountedOctets, buffer_of, count_searches, held_octets, steps_of
from tests.protocols.scripts import joined

MAX_OCTET_PIECES = 256  # a longer speech is cut into pieces no shorter than this many of them
MAX_WEIGHINGS = 50  # of what a conversation holds: each takes a while
HELD_SLACK_OCTETS = 4_096  # names, texts and states beside the buffers
MAX_ANSWER_OCTETS = 2_048  # to any one line: the longest is EHLO's list
LEAST_LINE_OCTETS = 4  # the shortest command that is answered is `AUTH` or EHLO's length; a bad one soon closes
MAX_DETAIL_CHARACTERS = PRINTABLE_TEXT_OCTETS + 40  # upstream's words, and a few of ours before
STEPS_PER_OCTET = 60  # calls, Python's own and C's; measured below 45
STEPS_AT_MOST_BESIDE = 4_000
GUESSABLE_OCTETS = 100  # `server_text.py` cuts out longer words
SCANS_PER_OCTET = 3  # octets that a line's end is searched in
VERDICT_TEXT = "Sign in at http://localhost:8143\r\n* BYE [ALERT] \x00 na\u00efve"  # as foreign as a text can be

_ENDING = (StartTLS, Login, Ready, Failed, Close)
LINES = re.compile(rb"(?:[\x20-\x7e]*\r\n)+")
_TEXT = re.compile(r"[\x20-\x7e]*")

READIES = (
    Ready(""),
    Ready("Logged in", ("IMAP4", "IDLE", "AUTH=PLAIN", "SIZE 1000", "PIPELINING")),
    Ready("\x00[ALERT]\r\nx", ("IMAP4", "SIZE 157286400", "8BITMIME"), b"* 3 EXISTS\r\n"),
    Ready("ok", ("STARTTLS", "AUTH LOGIN", "AUTH=LOGIN")),
)
REFUSALS = tuple(Refusal)
EXPIRES = len(REFUSALS)  # an answer to a login is one of the refusals, no answer in time, or one of READIES
FIRST_READY = EXPIRES + 1
ANSWERS = FIRST_READY + len(READIES)
FINAL = 0x80


@dataclass(frozen=True, slots=True)
class Subject:
    """A dialogue to play on, and its bounds."""

    make: Callable[[Case], Front | Upstream]
    held_bound_octets: int
    """What its named bounds allow it to hold between two inputs."""
    is_front: bool
    hands_over: Callable[..., None] | None = None
    """What a session does with an upstream's Ready; `token_known`: upstream had the token when it said so."""


class Conversation:
    """One play of a case."""

    def __init__(self, subject: Subject, case: Case) -> None:
        self.subject = subject
        self.case = case
        self.dialogue = subject.make(case)
        self.actions: list[Action] = []
        self.handed_over: bytearray | None = None
        """What belongs to the other side, after `accept` or Ready."""
        self.over = False
        self.token_sent = False
        self._answers = cycle(case.answers)
        self.waits_for_verdict = False
        self._last: Action | None = None
        self._unread_octets = 0
        """Fed since a verdict was awaited."""
        self._kept_octets = 0
        """In the dialogue's buffer after the last answer."""
        self._take(self.dialogue.opened(), 0)

    @property
    def starts_tls(self) -> bool:
        return isinstance(self._last, StartTLS)

    def feed(self, piece: bytes) -> None:
        if self.handed_over is not None:
            self.handed_over += piece
        elif self.over:
            assert self.dialogue.received(piece) == [], "an answer after the end"
        elif self.waits_for_verdict:
            self._unread_octets += len(piece)
            assert self.dialogue.received(piece) == [], "an answer while a verdict is awaited"
        else:
            knew = self.token_sent
            actions = self.dialogue.received(piece)
            self._take(actions, len(piece), token_known=knew)

    def settle(self) -> None:
        """The session answers, and TLS starts."""
        while not self.over and self.handed_over is None:
            if self.starts_tls:
                self._take(self.dialogue.tls_started(), 0)
            elif self.waits_for_verdict:
                self._answer(next(self._answers))
            else:
                return

    def end(self) -> None:
        if self.case.expires and self.subject.is_front and not self.over and self.handed_over is None:
            self._expire()
        if self.over:
            for piece in (b"\x16", b"", b"a LOGIN u p\r\nQUIT\r\n"):
                assert self.dialogue.received(piece) == [], "an answer after the end"

    def _answer(self, answer: int) -> None:
        front, self.waits_for_verdict = self._front(), False
        fed, self._unread_octets = self._unread_octets, 0
        kind = answer % ANSWERS
        if kind == EXPIRES:
            self._expire()
        elif kind < EXPIRES:
            refused = LoginRefused(REFUSALS[kind], VERDICT_TEXT, fault=Fault.CLIENT)
            self._take(front.refuse(refused, final=bool(answer & FINAL)), fed)
        else:
            ready = READIES[kind - FIRST_READY]
            actions = front.accept(ready)
            assert all(isinstance(action, Send | Close) for action in actions)
            untagged = ready.untagged
            self._take([_without_tail(action, untagged) for action in actions], 0)
            if not self.over:
                self.handed_over = bytearray(front.unread())
                assert front.unread() == b"", "handed over twice"

    def _expire(self) -> None:
        self.waits_for_verdict = False
        actions = self._front().expired()
        assert isinstance(actions[-1], Close)
        self._take(actions, 0)

    def _front(self) -> Front:
        assert self.subject.is_front
        return cast(Front, self.dialogue)

    def _take(self, actions: list[Action], fed: int, *, token_known: bool = True) -> None:
        """Note what a dialogue answered, and hold it against the rules."""
        self._last = actions[-1] if actions else None
        for action in actions[:-1]:
            assert isinstance(action, Send | ExpireIn), f"{type(action).__name__} is not the last action"
        for action in actions:
            self._judge(action, token_known)
        self.actions += actions
        said = sum(len(action.data) for action in actions if isinstance(action, Send))
        asked = fed + self._kept_octets  # what is answered now may have come in earlier
        assert said <= MAX_ANSWER_OCTETS * (2 + asked // LEAST_LINE_OCTETS), "the answer outgrows the question"
        self._kept_octets = len(buffer_of(self.dialogue))

    def _judge(self, action: Action, token_known: bool) -> None:
        shown = repr(action)
        match action:
            case Send(data, secret):
                assert LINES.fullmatch(data), "not whole lines of printable ASCII"
                assert not leaks(data, front=self.subject.is_front) or secret, "a secret in plain sight"
                assert not (secret and self.subject.is_front), "a front has no secret to send"
                self.token_sent = self.token_sent or secret
            case Login(credentials):
                assert self.subject.is_front
                self.waits_for_verdict = True
                beside = credentials.login + credentials.authorization_id if credentials else b""
                assert PASSWORD.decode() not in shown or PASSWORD in beside, "a password printed"
            case Ready(text, _, _):
                assert _TEXT.fullmatch(text)
                assert len(text) <= PRINTABLE_TEXT_OCTETS
                assert not (token_known and leaks(shown.encode(), front=False)), "a token handed on"
                self.handed_over = bytearray(self.dialogue.unread())
                assert self.subject.hands_over is not None
                self.subject.hands_over(action, token_known=token_known)
            case Failed(_, detail):
                assert _TEXT.fullmatch(detail)
                assert len(detail) <= MAX_DETAIL_CHARACTERS
                assert not (token_known and leaks(detail.encode(), front=False)), "a token told"
                self.over = True
            case Close(reason):
                assert re.fullmatch(r"[a-z_]+", reason)
                self.over = True
            case ExpireIn(limit_s):
                assert self.subject.is_front
                assert limit_s > 0
            case StartTLS():
                pass

    def judge_memory(self) -> None:
        held = held_octets({key: value for key, value in vars(self.dialogue).items() if key != "_settings"})
        bound = self.subject.held_bound_octets + HELD_SLACK_OCTETS + self._unread_octets
        assert self.over or self.handed_over is not None or held <= bound, f"{held} octets held, {bound} allowed"


def _without_tail(action: Action, untagged: bytes) -> Action:
    """An IMAP front hands upstream's own lines on; they are not its words."""
    if untagged and isinstance(action, Send) and action.data.endswith(untagged):
        return Send(action.data.removesuffix(untagged))
    return action


def leaks(said: bytes, *, front: bool) -> bool:
    """Whether these octets hold the secret, or so much of a token that the rest could be guessed at."""
    if front:
        return PASSWORD in said
    token, half = BEARER.token.encode(), GUESSABLE_OCTETS // 2
    if spoken_token() in said:
        return True
    if not any(token[start : start + half] in said for start in range(0, len(token), half)):
        return False  # what holds a part of this length holds one of these halves
    return any(token[start : start + GUESSABLE_OCTETS] in said for start in range(len(token) - GUESSABLE_OCTETS + 1))


def lines_of(speech: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(speech):
        end = speech.find(b"\n", start) + 1 or len(speech)
        yield speech[start:end]
        start = end


def play(subject: Subject, case: Case) -> None:
    """Play a case in three ways. Raises: AssertionError, or whatever the dialogue raises."""
    lines, tls_at = _by_lines(subject, case)
    pieces, steps, scanned = _in_pieces(subject, case, tls_at)
    assert joined(pieces.actions) == joined(lines.actions), "the same octets cut otherwise bring other answers"
    assert pieces.handed_over == lines.handed_over, "the same octets cut otherwise leave others"
    octets = len(case.speech)
    assert steps <= STEPS_AT_MOST_BESIDE + STEPS_PER_OCTET * octets, f"{steps} steps for {octets} octets"
    assert scanned <= STEPS_AT_MOST_BESIDE + SCANS_PER_OCTET * octets, f"{scanned} octets searched of {octets}"
    whole = Conversation(subject, case)
    whole.feed(case.speech)
    whole.settle()
    whole.judge_memory()
    whole.end()


def _by_lines(subject: Subject, case: Case) -> tuple[Conversation, list[int]]:
    conversation = Conversation(subject, case)
    fed, tls_at = 0, list[int]()
    between = 1 + case.speech.count(b"\n") // MAX_WEIGHINGS
    for number, line in enumerate(lines_of(case.speech)):
        conversation.feed(line)
        fed += len(line)
        if conversation.starts_tls:
            tls_at.append(fed)
        conversation.settle()
        if number % between == 0:
            conversation.judge_memory()
        if conversation.over:
            break
    conversation.judge_memory()
    conversation.end()
    return conversation, tls_at


def _in_pieces(subject: Subject, case: Case, tls_at: Sequence[int]) -> tuple[Conversation, int, int]:
    """The conversation, the steps it took, and the octets that were searched in it."""
    conversation = Conversation(subject, case)
    buffers: list[CountedOctets] = []

    def converse() -> None:
        due = case.late
        for piece, last in _pieces(case, tls_at):
            count_searches(conversation.dialogue, buffers)
            conversation.feed(piece)
            due = due - 1 if conversation.waits_for_verdict else case.late
            if due < 0 or last or not conversation.waits_for_verdict:
                conversation.settle()
                due = case.late
        conversation.end()

    steps = 0
    if case.counted:
        steps = steps_of(converse)
    else:
        converse()
    return conversation, steps, sum(buffer.scanned for buffer in buffers)


def _pieces(case: Case, tls_at: Iterable[int]) -> Iterator[tuple[bytes, bool]]:
    """The speech in pieces; whether the piece is the last one before TLS starts, or of all."""
    least = -(-len(case.speech) // MAX_OCTET_PIECES)
    start = 0
    for end in (*tls_at, len(case.speech)):
        for length in cycle(case.lengths):
            if start >= end:
                break
            stop = min(end, start + max(least, length))
            yield case.speech[start:stop], stop == end
            start = stop
