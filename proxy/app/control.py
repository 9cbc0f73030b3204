"""The daemon's control socket: one request and one answer, each a line of JSON. `asking.py` is the command's side.

It lies in the state folder, mode 0600: who may open it may do what the daemon's user may. Nothing secret passes but the
code of a sign-in that is about to be used up, and the key of one backup.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from proxy.accounts.store import StoreError
from proxy.app.answers import EXIT_FAILED, EXIT_USAGE, Answer, DeskError, refused_login
from proxy.app.asking import SOCKET_NAME
from proxy.log import Log
from proxy.login import LoginRefused
from proxy.network.doors import CannotListen

MAX_REQUEST_OCTETS = 65_536  # the longest is the address of a finished sign-in, some 4 KiB

Ask = Callable[[str, dict[str, Any]], Awaitable[Answer]]


class _Request(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = MAX_REQUEST_OCTETS

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self._answer(line))

    async def _answer(self, line: bytes) -> None:
        try:
            verb, arguments = _read(line)
            answer: Answer = {"answer": await self._ask(verb, arguments)}
        except DeskError as error:
            answer = {"error": error.text, "exit_code": error.exit_code}
        except LoginRefused as refused:
            told = refused_login(refused)
            answer = {"error": told.text, "exit_code": told.exit_code}
        except StoreError as error:
            answer = {"error": error.text, "exit_code": EXIT_FAILED}
        except Exception as error:
            Log("control").failure("request failed", error)
            answer = {"error": "The daemon met an error of its own; its log has the details.", "exit_code": EXIT_FAILED}
        self._say(answer)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002
        self._say({"error": "The request is too long for the daemon.", "exit_code": EXIT_USAGE})

    def _say(self, answer: Answer) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps(answer).encode() + b"\n")
        self.transport.loseConnection()


def _read(line: bytes) -> tuple[str, dict[str, Any]]:
    """Verb and arguments of a request. Raises: DeskError."""
    with contextlib.suppress(ValueError, RecursionError):
        match json.loads(line):
            case {"verb": str(verb), "arguments": dict(arguments)}:
                return verb, arguments
    raise DeskError("The daemon could not read the request.", EXIT_USAGE)


class _Requests(Factory):
    noisy = False

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def buildProtocol(self, addr: IAddress | None) -> _Request:  # noqa: ARG002
        return _Request(self._ask)


class ControlSocket:
    """Listens from `start` to `stop`."""

    def __init__(self, state_dir: Path, ask: Ask, reactor: IReactorUNIX) -> None:
        self._path = state_dir / SOCKET_NAME
        self._factory = _Requests(ask)
        self._reactor = reactor

    def start(self) -> None:
        """Raises: CannotListen: the folder's name is too long for a socket, or what lies there cannot be removed."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()  # left by a daemon that was killed; the folder's lock says that none runs
            self._port = self._reactor.listenUNIX(os.fspath(self._path), self._factory, mode=0o600)
        except (OSError, CannotListenError) as error:
            reason = getattr(error, "socketError", error)
            raise CannotListen(f"The control socket {self._path} cannot be made: {reason}") from None

    async def stop(self) -> None:
        stopped = self._port.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
