"""Wire dialogues that anyone can read, `tests/dialogues/*.txt`, and how they are played on a pure dialogue.

A script is a header, an empty line, and a body. Lines that begin with `#` are comments. File names: protocol, then
`case-NN` of CLIENTS section 6 where one applies, then what it shows: `imap-case-02-login.txt`.

Header, `key: value`, any order; only `protocol` is needed:

    protocol: imap             imap | pop3 | smtp
    side: front                front (default): the script plays the mail program; upstream: it plays Exchange
    tls: off                   front: off (default) | offered | required (offered, and no password without) | active
                               upstream: off (default; TLS was there from the first byte) | starttls
    failures: honest           honest (default) | deferred            (front only)
    implicit: no               no (default) | yes: the listener has an account for devices that never log in
    learnt: IDLE               one entry of FrontSettings.learnt; may stand several times
    session: accept            the session's answer to the first Login; one such line for each Login, in turn:
    session: refuse BAD_CREDENTIALS Wrong login or password.           Refusal's name, then the text
    session: refuse final BAD_CREDENTIALS Wrong login or password.     the same with final=True
    session: slow accept       either answer, but only behind the next `> waiting`
    ready: Logged in.          Ready.text of an accepting session (default: empty)
    capability: IDLE           one entry of its Ready.capabilities; may stand several times
    untagged: * 3 EXISTS       one line (CRLF is added) of its Ready.untagged; may stand several times
    split: no                  the pieces must come as written (STARTTLS injection); default: yes

The hostname is `mail.test`; the bearer is `Bearer("u@example.com", "TOKEN")`.

Body, in the order of the wire. `C` is the client and `S` the server, so a front speaks the `S` lines and an upstream
the `C` lines. Each line of the other side is one piece of input; the answers to all pieces above them follow:

    C: a LOGIN u p             this line and CRLF, verbatim (UTF-8; no escapes)
    C! a LOGIN u {1}\\r\\nx    these octets alone, with Python's bytes escapes, as one piece
    S: a OK Logged in.         the same two forms for `S`
    > expired                  input: the time for logging in is over            (front only)
    > waiting                  input: the login takes its time                   (front only)
    = login b"u", b"p"         action: Login(Credentials(...)), Python literals in its fields' order
    = login none               action: Login(None)
    = expire 10                action: ExpireIn(10.0)
    = starttls                 action: StartTLS; `tls_started()` follows at once
    = close logout             action: Close and its reason
    = ready "text", ("IDLE",), b""         action: Ready(...), Python literals  (upstream only)
    = failed TRY_LATER its detail          action: Failed, Refusal's name, then the detail (upstream only)
    = unread b"..."            last line: what is handed to the other side after `accept` or Ready; default: nothing

Neighbouring `Send`s are compared joined, and their `secret` is not compared.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal
from proxy.protocols.dialogue import (
    Action,
    Close,
    ExpireIn,
    Failed,
    Front,
    FrontSettings,
    Login,
    MailProtocol,
    Ready,
    Send,
    StartTLS,
    Upstream,
    UpstreamSettings,
)

FOLDER = Path(__file__).parent.parent / "dialogues"
BEARER = Bearer("u@example.com", "TOKEN")


@dataclass(frozen=True, slots=True)
class Expired:
    """The input `expired()`."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The input `waiting()`; a slow session answers behind it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    refused: LoginRefused
    final: bool


@dataclass(frozen=True, slots=True)
class Slow:
    """An answer that comes only behind `Waiting`."""

    answer: Ready | Refuse


Input = bytes | Expired | Waiting
Answer = Ready | Refuse | Slow


@dataclass(slots=True)
class Exchange:
    """Some inputs and the actions that answer them."""

    inputs: list[Input] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    name: str
    """That of its file, `imap-case-02-login`."""
    protocol: str
    side: str
    front_settings: FrontSettings
    upstream_settings: UpstreamSettings
    answers: list[Answer]
    splits: bool
    exchanges: list[Exchange]
    unread: bytes

    @property
    def test_id(self) -> str:
        """Its name as pytest's `-k` takes it: `imap_case_02_login`."""
        return self.name.replace("-", "_")

    def splittable(self) -> tuple[bytes, list[Action]]:
        """What may be cut anywhere, and what answers it: all up to STARTTLS or an input that is no octet."""
        octets, actions = b"", list[Action]()
        for exchange in self.exchanges:
            if not all(isinstance(piece, bytes) for piece in exchange.inputs):
                break
            octets += b"".join(piece for piece in exchange.inputs if isinstance(piece, bytes))
            actions += exchange.actions
            if StartTLS() in exchange.actions:
                actions = actions[: actions.index(StartTLS()) + 1]
                break
        return octets, joined(actions)


class Player:
    """One dialogue and the session behind it, which answers each Login at once, if it is not slow."""

    def __init__(self, script: Script, protocol: MailProtocol) -> None:
        self.front: Front | None = protocol.front(script.front_settings) if script.side == "front" else None
        self.dialogue: Front | Upstream = self.front or protocol.upstream(script.upstream_settings)
        self._answers = list(script.answers)
        self._slow: Ready | Refuse | None = None
        self._handed_over: bytearray | None = None
        self._over = False

    def open(self) -> list[Action]:
        return self._follow(self.dialogue.opened())

    def play(self, piece: Input) -> list[Action]:
        """What this input brings, the session's answers included; octets after `accept` or Ready only pile up."""
        if self._handed_over is not None and isinstance(piece, bytes):
            self._handed_over += piece
            return []
        if self._over:
            return []  # as on the network: after Close or Failed nothing is read any more
        if isinstance(piece, bytes):
            return self._follow(self.dialogue.received(piece))
        assert self.front is not None
        if isinstance(piece, Expired):
            return self._follow(self.front.expired())
        assert self._slow is not None, "nobody waits"
        actions, answer, self._slow = self.front.waiting(), self._slow, None
        return actions + self._tell(answer)

    def unread(self) -> bytes:
        return bytes(self._handed_over or b"")

    def _follow(self, actions: list[Action]) -> list[Action]:
        assert not any(isinstance(action, (StartTLS, Login, Ready, Failed, Close)) for action in actions[:-1])
        match actions[-1] if actions else None:
            case Login():
                answer = self._answers.pop(0)
                if not isinstance(answer, Slow):
                    return actions + self._tell(answer)
                self._slow = answer.answer
            case StartTLS():
                return actions + self._follow(self.dialogue.tls_started())
            case Ready():
                self._handed_over = bytearray(self.dialogue.unread())
            case Close() | Failed():
                self._over = True
            case _:
                pass
        return actions

    def _tell(self, answer: Ready | Refuse) -> list[Action]:
        assert self.front is not None
        match answer:
            case Ready() as ready:
                actions = self.front.accept(ready)
                self._handed_over = bytearray(self.front.unread())
                assert all(isinstance(action, Send) for action in actions)
                return actions
            case Refuse(refused, final):
                return self._follow(self.front.refuse(refused, final=final))
            case never:
                assert_never(never)


def joined(actions: Iterable[Action]) -> list[Action]:
    """Neighbouring Sends as one."""
    result: list[Action] = []
    for action in actions:
        if isinstance(action, Send):
            if result and isinstance(result[-1], Send):
                result[-1] = Send(result[-1].data + action.data)
            else:
                result.append(Send(action.data))
        else:
            result.append(action)
    return result


def replay(script: Script, protocol: MailProtocol, pieces: Sequence[bytes]) -> tuple[list[Action], bytes]:
    """Feed these pieces instead of the script's own; the joined actions, and what is unread at the end."""
    player = Player(script, protocol)
    actions = player.open()
    for piece in pieces:
        actions += player.play(piece)
        if StartTLS() in actions:
            actions = actions[: actions.index(StartTLS()) + 1]
            break
    return joined(actions), player.unread()


_EVENTS: dict[str, Input] = {"> expired": Expired(), "> waiting": Waiting()}


def scripts() -> list[Script]:
    return [parse(path) for path in sorted(FOLDER.glob("*.txt"))]


def parse(path: Path) -> Script:
    """Read one script.

    Raises:
        ValueError: a line that the format does not know.
    """
    header, body = _sections(path)
    known = {"protocol", "side", "tls", "failures", "implicit", "learnt", "session"}
    known |= {"ready", "capability", "untagged", "split"}
    if unknown := {key for key, _ in header} - known:
        raise ValueError(f"{path.name}: unknown header {unknown}")
    single = dict(header)
    listed = {key: tuple(value for k, value in header if k == key) for key in known}
    side, tls = single.get("side", "front"), single.get("tls", "off")
    if side not in ("front", "upstream") or tls not in ("off", "offered", "required", "active", "starttls"):
        raise ValueError(f"{path.name}: side {side}, tls {tls}")
    ready = Ready(
        single.get("ready", ""),
        listed["capability"],
        b"".join(line.encode() + b"\r\n" for line in listed["untagged"]),
    )
    script = Script(
        name=path.stem,
        protocol=single["protocol"],
        side=side,
        front_settings=FrontSettings(
            hostname="mail.test",
            offers_tls=tls in ("offered", "required"),
            tls_active=tls == "active",
            requires_tls=tls == "required",
            defers_failures=single.get("failures", "honest") == "deferred",
            implicit_account=single.get("implicit", "no") == "yes",
            learnt=listed["learnt"],
        ),
        upstream_settings=UpstreamSettings(BEARER, starttls=tls == "starttls", hostname="mail.test"),
        answers=[_answer(value, ready) for value in listed["session"]],
        splits=single.get("split", "yes") == "yes",
        exchanges=[Exchange()],
        unread=b"",
    )
    for line in body:
        _read_line(script, line)
    return replace(script, exchanges=[Exchange(e.inputs, joined(e.actions)) for e in script.exchanges])


def _sections(path: Path) -> tuple[list[tuple[str, str]], list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if not line.startswith("#")]
    while not lines[0]:
        lines.pop(0)
    end = lines.index("")
    header = [(key, value.strip()) for key, _, value in (line.partition(":") for line in lines[:end])]
    return header, [line for line in lines[end + 1 :] if line]


def _answer(text: str, ready: Ready) -> Answer:
    match text.split(maxsplit=1):
        case ["slow", rest]:
            answer = _answer(rest, ready)
            assert not isinstance(answer, Slow)
            return Slow(answer)
        case ["accept"]:
            return ready
        case ["refuse", rest]:
            final = rest.startswith("final ")
            name, _, words = rest.removeprefix("final ").partition(" ")
            return Refuse(LoginRefused(Refusal[name], words, fault=Fault.MAILFERRY), final)
        case _:
            raise ValueError(f"session: {text}")


def _read_line(script: Script, line: str) -> None:
    kind, text = line[:2], line[3:]
    theirs = "C" if script.side == "front" else "S"
    if kind == "> " or (kind[0] == theirs and kind[1] in ":!"):
        if script.exchanges[-1].actions:
            script.exchanges.append(Exchange())
        script.exchanges[-1].inputs.append(_EVENTS[line] if kind == "> " else _octets(line))
        return
    actions = script.exchanges[-1].actions
    if kind == "= ":
        verb, _, words = line[2:].partition(" ")
        match verb:
            case "login":
                actions.append(Login(None if words == "none" else Credentials(*_values(words))))
            case "expire":
                actions.append(ExpireIn(float(words)))
            case "starttls":
                actions.append(StartTLS())
            case "close":
                actions.append(Close(words))
            case "ready":
                actions.append(Ready(*_values(words)))
            case "failed":
                name, _, detail = words.partition(" ")
                actions.append(Failed(Refusal[name], detail))
            case "unread":
                script.unread = ast.literal_eval(words)
            case _:
                raise ValueError(f"{script.name}: {line}")
    elif kind[0] in "CS" and kind[1] in ":!":
        actions.append(Send(_octets(line)))
    else:
        raise ValueError(f"{script.name}: {line} ({text})")


def _octets(line: str) -> bytes:
    if line[1] == ":":
        return line[3:].encode() + b"\r\n"
    value = ast.literal_eval('b"' + line[3:].replace('"', '\\"') + '"')
    if not isinstance(value, bytes):
        raise ValueError(line)
    return value


def _values(words: str) -> tuple[Any, ...]:
    """Python literals with commas between them; one behind the last does no harm."""
    values: tuple[Any, ...] = ast.literal_eval(f"({words.removesuffix(',')},)")
    return values
