"""Telling systemd how we are (sd_notify(3)): ready, reloading, stopping, and a pulse while we live.

One datagram to `$NOTIFY_SOCKET` for each message; without a service manager nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from proxy.log import Log

STATUS_EVERY_S = 60.0
PINGS_A_LIMIT = 3  # one that is lost, or late, does not end us
MAX_PROOF_S = 5.0  # for a connection of our own to be accepted; it takes a millisecond

log = Log("daemon")


def notify(message: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send e.g. `READY=1`. Without a service manager, or if it does not listen, nothing happens."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract name space
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.sendto(message.encode(), address)
    except OSError:
        return  # not worth a daemon's life


class Doors(Protocol):
    """What must open for mail programs: `network.listener.Ferry`."""

    def begin_proof(self) -> None: ...
    def deaf(self) -> list[str]: ...


class Pulse:
    """A line of status again and again, and with it a ping of the watchdog, which has to be earned.

    A beat begins a connection to every listener and looks a moment later whether each was accepted. That it looks
    shows that the reactor turns, that they were accepted shows that the listeners do; only then is `WATCHDOG=1` sent.
    It does not show that Microsoft answers, that the store can be written or that a login succeeds: a restart mends
    none of these.
    """

    def __init__(
        self, doors: Doors, status: Callable[[], str], reactor: IReactorTime, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._doors = doors
        self._status = status
        self._reactor = reactor
        self._environ = environ
        self._limit_s = _watchdog_s(environ)
        self._every_s = self._limit_s / PINGS_A_LIMIT if self._limit_s else STATUS_EVERY_S
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """The first beat; nothing without a service manager."""
        if self._environ.get("NOTIFY_SOCKET"):
            self._beat()

    def stop(self) -> None:
        if self._next:
            self._next.cancel()
            self._next = None

    def _beat(self) -> None:
        self._doors.begin_proof()
        proof_s = min(MAX_PROOF_S, self._every_s / 2)
        self._next = self._reactor.callLater(proof_s, self._look, self._every_s - proof_s)

    def _look(self, rest_s: float) -> None:
        self._next = self._reactor.callLater(rest_s, self._beat)
        deaf = self._doors.deaf()
        if deaf:
            log.error("listeners do not accept", listeners=", ".join(deaf))
            notify(f"STATUS=does not accept at {', '.join(deaf)}", self._environ)
        else:
            ping = "\nWATCHDOG=1" if self._limit_s else ""
            notify(f"STATUS={self._status()}{ping}", self._environ)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """The time within which a ping is expected from this process; 0: none is."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    given = environ.get("WATCHDOG_USEC", "")
    return int(given) / 1e6 if given.isdecimal() else 0.0
