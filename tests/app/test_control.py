"""The control socket, from both ends: what daemons answer, and what commands make of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from proxy.accounts.store import StoreUnavailable
from proxy.app.answers import Answer, DeskError
from proxy.app.asking import SOCKET_NAME, NoDaemon, ask_daemon
from proxy.app.control import MAX_REQUEST_OCTETS, ControlSocket
from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.doors import CannotListen
from tests.app.home import PATIENCE_S, Turning

UNREADABLE = {"error": "The daemon could not read the request.", "exit_code": 2}


class Daemon:
    """Answers every request as the test says, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[Deferred[Answer]] = []
        self.fails: Exception | None = None
        self.waits = False

    async def ask(self, verb: str, arguments: dict[str, Any]) -> Answer:
        self.asked.append((verb, arguments))
        if self.fails:
            raise self.fails
        if self.waits:
            self.answers.append(Deferred())
            return await self.answers[-1]
        return {"said": verb}


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def control(daemon: Daemon, tmp_path: Path, turning_reactor: Turning) -> Iterator[ControlSocket]:
    control = ControlSocket(tmp_path, daemon.ask, cast("Any", turning_reactor.reactor))
    turning_reactor.call(control.start)
    yield control
    turning_reactor.wait(control.stop)


@pytest.fixture
def path(control: ControlSocket, tmp_path: Path) -> Path:
    return tmp_path / SOCKET_NAME


@contextlib.contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        yield connection


def answer(connection: socket.socket) -> Any:
    """All that comes until the daemon closes."""
    with connection.makefile("rb") as lines:
        (line,) = lines.readlines()
    return json.loads(line)


def asked(path: Path, request: bytes) -> Any:
    with connected(path) as connection:
        connection.sendall(request)
        return answer(connection)


# --- the daemon's side


def test_only_its_user_may_open_it(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_request_and_its_answer(path: Path, daemon: Daemon) -> None:
    assert asked(path, b'{"verb": "accounts", "arguments": {"a": 1}}\n') == {"answer": {"said": "accounts"}}
    assert daemon.asked == [("accounts", {"a": 1})]


@pytest.mark.parametrize(
    "request_line",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"verb": "x"}',
        b'{"arguments": {}}',
        b'{"verb": 1, "arguments": {}}',
        b'{"verb": "x", "arguments": []}',
        b'{"verb": "x", "arguments": "abc"}',
        b"[" * 60_000,
    ],
)
def test_a_malformed_request(request_line: bytes, path: Path, daemon: Daemon) -> None:
    assert asked(path, request_line + b"\n") == UNREADABLE
    assert daemon.asked == []


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_line_that_is_too_long(ending: bytes, path: Path, daemon: Daemon) -> None:
    said = asked(path, b"x" * (MAX_REQUEST_OCTETS + 1) + ending)
    assert said == {"error": "The request is too long for the daemon.", "exit_code": 2}
    assert daemon.asked == []


def test_the_longest_line(path: Path, daemon: Daemon) -> None:
    frame = b'{"verb": "x", "arguments": {"a": ""}}'
    text = b"y" * (MAX_REQUEST_OCTETS - len(frame))
    assert asked(path, frame.replace(b'""', b'"' + text + b'"') + b"\n") == {"answer": {"said": "x"}}
    assert daemon.asked == [("x", {"a": text.decode()})]


def test_a_request_in_pieces(path: Path) -> None:
    with connected(path) as connection:
        for octet in b'{"verb": "x", "arguments": {}}\n':
            connection.send(bytes([octet]))
        assert answer(connection) == {"answer": {"said": "x"}}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DeskError("No.", 2), {"error": "No.", "exit_code": 2}),
        (LoginRefused(Refusal.TRY_LATER, "Later.", fault=Fault.NETWORK), {"error": "Later.", "exit_code": 1}),
        (LoginRefused(Refusal.SIGN_IN_NEEDED, "Sign in.", fault=Fault.CLIENT), {"error": "Sign in.", "exit_code": 3}),
        (StoreUnavailable("Full."), {"error": "Full.", "exit_code": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_answered(error: Exception, said: Answer, path: Path, daemon: Daemon) -> None:
    daemon.fails = error
    assert asked(path, b'{"verb": "x", "arguments": {}}\n') == said


@pytest.mark.parametrize("error", [TypeError("t"), KeyError("k"), ValueError("v"), RuntimeError("r")])
def test_a_mistake_of_our_own_is_logged_and_answered(
    error: Exception, path: Path, daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.fails = error
    said = asked(path, b'{"verb": "x", "arguments": {"code": "s3cret"}}\n')
    assert said == {"error": "The daemon met an error of its own; its log has the details.", "exit_code": 1}
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert "s3cret" not in caplog.text
    daemon.fails = None
    assert asked(path, b'{"verb": "x", "arguments": {}}\n') == {"answer": {"said": "x"}}


def test_two_requests_at_once_do_not_wait_for_each_other(path: Path, daemon: Daemon, turning_reactor: Turning) -> None:
    with connected(path) as slow:
        daemon.waits = True
        slow.sendall(b'{"verb": "slow", "arguments": {}}\n')
        wait_for(turning_reactor, lambda: len(daemon.answers) == 1)
        daemon.waits = False
        assert asked(path, b'{"verb": "quick", "arguments": {}}\n') == {"answer": {"said": "quick"}}
        turning_reactor.call(lambda: daemon.answers[0].callback({"said": "slow"}))
        assert answer(slow) == {"answer": {"said": "slow"}}


def test_a_command_that_leaves_disturbs_nobody(
    path: Path, daemon: Daemon, turning_reactor: Turning, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.waits = True
    with connected(path) as gone:
        gone.sendall(b'{"verb": "slow", "arguments": {}}\n')
        wait_for(turning_reactor, lambda: len(daemon.answers) == 1)
    turning_reactor.call(lambda: daemon.answers[0].callback({}))
    daemon.waits = False
    assert asked(path, b'{"verb": "x", "arguments": {}}\n') == {"answer": {"said": "x"}}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def wait_for(reactor: Turning, holds: Callable[[], bool]) -> None:
    """Turn the reactor until it holds."""
    for _ in range(10_000):
        if reactor.call(holds):
            return
    raise AssertionError("it does not come")


# --- its life


def test_a_socket_left_by_a_killed_daemon_is_replaced(daemon: Daemon, tmp_path: Path, turning_reactor: Turning) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
        left.listen()
    with pytest.raises(NoDaemon):
        ask_daemon(tmp_path, "x", {})
    control = ControlSocket(tmp_path, daemon.ask, cast("Any", turning_reactor.reactor))
    turning_reactor.call(control.start)
    assert ask_daemon(tmp_path, "x", {}) == {"said": "x"}
    turning_reactor.wait(control.stop)


def test_it_is_gone_when_the_daemon_ends(daemon: Daemon, tmp_path: Path, turning_reactor: Turning) -> None:
    control = ControlSocket(tmp_path, daemon.ask, cast("Any", turning_reactor.reactor))
    turning_reactor.call(control.start)
    turning_reactor.wait(control.stop)
    with pytest.raises(NoDaemon):
        ask_daemon(tmp_path, "x", {})


def test_a_folder_whose_name_is_too_long_is_said(daemon: Daemon, tmp_path: Path, turning_reactor: Turning) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    control = ControlSocket(deep, daemon.ask, cast("Any", turning_reactor.reactor))
    with pytest.raises(CannotListen, match=f"{SOCKET_NAME} cannot be made: .*too long"):
        turning_reactor.call(control.start)
    with pytest.raises(NoDaemon):
        ask_daemon(deep, "x", {})


def test_something_else_in_its_place_is_said(daemon: Daemon, tmp_path: Path, turning_reactor: Turning) -> None:
    (tmp_path / SOCKET_NAME).mkdir()
    control = ControlSocket(tmp_path, daemon.ask, cast("Any", turning_reactor.reactor))
    with pytest.raises(CannotListen, match=SOCKET_NAME):
        turning_reactor.call(control.start)


# --- the command's side


def test_a_command_asks(path: Path, daemon: Daemon) -> None:
    assert ask_daemon(path.parent, "sign_out", {"login": "älice"}) == {"said": "sign_out"}
    assert daemon.asked == [("sign_out", {"login": "älice"})]


def test_a_command_is_told_what_went_wrong(path: Path, daemon: Daemon) -> None:
    daemon.fails = DeskError("It failed.", 2)
    with pytest.raises(DeskError, match=r"It failed\.") as caught:
        ask_daemon(path.parent, "x", {})
    assert caught.value.exit_code == 2


def test_nobody_is_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NoDaemon):
            ask_daemon(folder, "x", {})


@pytest.mark.parametrize("says", [b"", b'{"answer": ', b"nonsense\n"])
def test_a_daemon_that_goes_away_in_the_middle(says: bytes, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET_NAME))
        listening.listen()

        def die() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(MAX_REQUEST_OCTETS)
                connection.sendall(says)

        dying = threading.Thread(target=die)
        dying.start()
        with pytest.raises(DeskError, match="went away before it answered"):
            ask_daemon(tmp_path, "x", {})
        dying.join()


def test_somebody_elses_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(self: socket.socket, address: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket.socket, "connect", forbid)  # root may open anything
    with pytest.raises(DeskError, match="run this as its user"):
        ask_daemon(tmp_path, "x", {})
