"""The datagram to systemd, and the pulse; the daemon's own messages are tested in `systemd/test_unit.py`."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from proxy.app.notify import MAX_PROOF_S, STATUS_EVERY_S, Pulse, notify


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "file" else f"@mailferry-{secrets.token_hex(8)}"


def test_a_message_is_one_datagram(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(20)
        notify("RELOADING=1\nMONOTONIC_USEC=17", {"NOTIFY_SOCKET": address})
        assert manager.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=17"


@pytest.mark.parametrize("given", [None, "", "/nowhere/at/all", "@nobody-listens-here", "vsock:2:1", "/" + "x" * 200])
def test_nobody_who_listens_is_no_trouble(given: str | None) -> None:
    notify("READY=1", {} if given is None else {"NOTIFY_SOCKET": given})


class Doors:
    """Listeners that accept, unless they are `closed`."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.proofs = 0

    def begin_proof(self) -> None:
        self.proofs += 1

    def deaf(self) -> list[str]:
        return self.closed


class Watched:
    """A pulse on a clock, and what systemd hears of it."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.doors, self.clock = Doors(), Clock()
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.setblocking(False)
        self.pulse = Pulse(
            self.doors, lambda: "3 sessions", self.clock, {"NOTIFY_SOCKET": str(folder / "notify"), **environ}
        )

    def heard(self) -> list[str]:
        messages = []
        with suppress(BlockingIOError):
            while True:
                messages.append(self._manager.recv(4096).decode())
        return messages

    def close(self) -> None:
        self.pulse.stop()
        self._manager.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with closing(Watched(tmp_path, WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))) as watched:
        yield watched


def test_a_ping_every_third_of_the_limit_each_behind_a_proof(watched: Watched) -> None:
    watched.pulse.start()
    assert (watched.doors.proofs, watched.heard()) == (1, []), "nothing is proved yet"
    watched.clock.advance(MAX_PROOF_S)
    assert watched.heard() == ["STATUS=3 sessions\nWATCHDOG=1"]
    for number in (2, 3, 4):
        watched.clock.advance(10 - MAX_PROOF_S)
        assert watched.doors.proofs == number
        watched.clock.advance(MAX_PROOF_S)
        assert watched.heard() == ["STATUS=3 sessions\nWATCHDOG=1"]


def test_no_ping_while_a_listener_does_not_accept(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.doors.closed = ["127.0.0.1 1143"]
    watched.pulse.start()
    watched.clock.advance(MAX_PROOF_S)
    assert watched.heard() == ["STATUS=does not accept at 127.0.0.1 1143"]
    assert caplog.records[0].getMessage() == "listeners do not accept"
    watched.doors.closed = []
    watched.clock.pump([5, MAX_PROOF_S])
    assert watched.heard() == ["STATUS=3 sessions\nWATCHDOG=1"]


def test_a_pulse_ends(watched: Watched) -> None:
    watched.pulse.start()
    watched.pulse.stop()
    assert watched.clock.getDelayedCalls() == []


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}])
def test_without_a_watchdog_there_is_status_alone(tmp_path: Path, environ: dict[str, str]) -> None:
    with closing(Watched(tmp_path, **environ)) as watched:
        watched.pulse.start()
        watched.clock.advance(MAX_PROOF_S)
        assert watched.heard() == ["STATUS=3 sessions"]
        watched.clock.pump([STATUS_EVERY_S - MAX_PROOF_S, MAX_PROOF_S])
        assert watched.heard() == ["STATUS=3 sessions"]


def test_without_a_manager_there_is_no_pulse() -> None:
    doors, clock = Doors(), Clock()
    Pulse(doors, str, clock, {"WATCHDOG_USEC": "30000000"}).start()
    assert (doors.proofs, clock.getDelayedCalls()) == (0, [])
