"""A reload while 500 sessions run, each in the middle of an answer: none is dropped, no octet lost or changed."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from proxy.app.answers import DeskError
from tests.end_to_end.exchange import PATIENCE_S, Wire
from tests.end_to_end.quay import QuayFerry, announce, let_in, log_in, mailbox, many_descriptors, scripted_quay
from tests.servers.child import free_port

BOXES = 12
SESSIONS = {"imap": 388, "pop3": BOXES, "smtp": 100}  # POP3 opens a mailbox once at a time
ROUNDS = ("before", "during", "after")
HALF_LINES = 32
AT_ONCE = 16


def answer(question: bytes) -> list[bytes]:
    """What Exchange says to it, in two halves; no two are the same."""
    lines = hashlib.shake_128(question).hexdigest(HALF_LINES * 510).encode()
    whole = b"".join(lines[start : start + 510] + b"\r\n" for start in range(0, len(lines), 510))
    return [whole[: len(whole) // 2], whole[len(whole) // 2 :]]


def serve(protocol: str, wire: Wire) -> bytes:
    """Exchange's side: of every answer half is sent, and the rest when the next question is asked, or at the end."""
    let_in(wire, protocol)
    kept = b""
    for _ in ROUNDS:
        first, second = answer(wire.line())
        wire.send(kept + first)
        kept = second
    wire.expect(b"that is all\r\n")
    wire.send(kept)
    return wire.rest()


class Program:
    """A mail program in a session of its own: it asks, and compares."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name
        self._later = b""
        self._awaited = b""

    def ask(self, word: str) -> None:
        question = f"{self._name} {word}".encode()
        self._wire.send(question + b"\r\n")
        first, second = answer(question)
        self._awaited += self._later + first
        self._later = second

    def hears_all(self) -> bool:
        """What is due, octet for octet."""
        awaited, self._awaited = self._awaited, b""
        return self._wire.lines(awaited.count(b"\n")) == awaited

    def ends_well(self) -> bool:
        self._wire.send(b"that is all\r\n")
        self._awaited, self._later = self._later, b""
        return self.hears_all() and self._wire.goodbye() == b""


def test_a_reload_drops_none_of_five_hundred_sessions(tmp_path: Path) -> None:
    boxes = [mailbox(number, f"Password-of-berth-{number}") for number in range(BOXES)]
    with many_descriptors(), scripted_quay(tmp_path, boxes) as (ferry, exchange, _), ExitStack() as stack:
        ended = {
            protocol: announce(exchange, protocol, *[partial(serve, protocol)] * count)
            for protocol, count in SESSIONS.items()
        }

        def begin(protocol: str, number: int) -> Wire:
            box, wire = boxes[number % BOXES], ferry.connect(protocol)
            reply = log_in(wire, protocol, box.logins[0], box.passwords[0])
            assert reply.startswith(("a OK", "+OK", "235")), reply
            return wire

        kinds = [protocol for protocol, count in SESSIONS.items() for _ in range(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            wires = [stack.enter_context(closing(wire)) for wire in pool.map(begin, kinds, range(len(kinds)))]
        programs = [Program(wire, f"x{number}") for number, wire in enumerate(wires)]
        for program in programs:
            program.ask("before")
        assert all(program.hears_all() for program in programs)

        for program in programs:
            program.ask("during")
        new_port = _change_everything(ferry)
        ferry.hang_up(3)
        _break(ferry)
        with pytest.raises(DeskError, match="nowhere"):
            ferry.ask("reload")
        assert all(program.hears_all() for program in programs)
        for protocol in SESSIONS:
            with pytest.raises(ConnectionRefusedError):
                ferry.connect(protocol)
        with closing(ferry.connect(new_port)) as late:
            assert late.line().startswith(b"* OK")

        for program in programs:
            program.ask("after")
        assert all(program.hears_all() for program in programs)
        assert all(program.ends_well() for program in programs)
        assert [future.result(PATIENCE_S) for futures in ended.values() for future in futures] == [b""] * len(kinds)


def _change_everything(ferry: QuayFerry) -> int:
    """Every listener goes and another comes, whose port is returned; the account and its upstreams change too."""
    new_port = free_port()
    document = json.loads(ferry.config.read_text())
    document["listeners"] = [{"protocol": "imap", "address": "localhost", "port": new_port, "tls": "auto"}]
    document["accounts"][0] |= {"imap_connections": 1, "protocols": ["imap"]}
    document["upstreams"] = {"imap": {"host": "127.0.0.1", "port": free_port(), "tls": "implicit"}}
    document["hostname"] = "other.test"
    ferry.config.write_text(json.dumps(document))
    return new_port


def _break(ferry: QuayFerry) -> None:
    document = json.loads(ferry.config.read_text())
    document["accounts"][0]["app"] = "nowhere"
    ferry.config.write_text(json.dumps(document))
