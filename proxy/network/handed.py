"""Sockets that systemd listens on for us and hands over at the start (sd_listen_fds(3)): socket activation.

They outlive this process: who connects while mailferry restarts waits in the kernel's queue, and is served by the
next one. `daemon.py` takes them once, `listener.py` claims them. What it is not: a reason to listen; the configuration
says where.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, MutableMapping

from proxy.config.settings import Listener
from proxy.log import Log

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""
MAX_SOCKETS = 1024  # more is no number of sockets but nonsense in a variable
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_LOOPBACK = ("127.0.0.1", "::1")

log = Log("listener")


class Handed:
    """The sockets that nobody has claimed yet, each with the name that its socket unit gives it."""

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._sockets = list(sockets)

    def claim(self, listener: Listener) -> list[socket.socket]:
        """Those that are this listener's: its `socket` is their name, and they listen at its address and port.

        The address counts because the configuration was judged by it: what may be plain text is on loopback.
        """
        claimed = [(name, sock) for name, sock in self._sockets if name == listener.socket and _is_at(sock, listener)]
        self._sockets = [pair for pair in self._sockets if pair not in claimed]
        return [sock for _, sock in claimed]

    def close_rest(self) -> None:
        """Say of each that nobody claimed, and let it go: who connected would wait for ever."""
        for name, sock in self._sockets:
            address, port = sock.getsockname()[:2]
            log.warning(
                "no listener for a socket of systemd's",
                socket=name,
                address=address,
                port=port,
                remedy="write a listener with this address and port, or take it out of mailferry.socket",
            )
            sock.close()
        self._sockets = []


def take(environ: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR) -> Handed:
    """What was handed to this process. The variables are taken away, so that no child believes they are for it."""
    pid, count, names = (environ.pop(variable, "") for variable in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) > MAX_SOCKETS:
        return Handed()
    given = names.split(":") if names else []
    return Handed(
        (given[index] if index < len(given) else "unknown", sock)
        for index in range(int(count))
        if (sock := _listening(first + index)) is not None
    )


def _listening(descriptor: int) -> socket.socket | None:
    """The TCP socket that listens there; None, and a word in the log, for anything else."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        log.warning("systemd handed over what is no socket", descriptor=descriptor, reason=str(error))
        return None
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return sock
    log.warning("systemd handed over a socket that does not listen for TCP", descriptor=descriptor)
    sock.close()
    return None


def _is_at(sock: socket.socket, listener: Listener) -> bool:
    address, port = sock.getsockname()[:2]
    if port != listener.port:
        return False
    wanted = _LOOPBACK if listener.address == "localhost" else (listener.address,)
    return any(ipaddress.ip_address(address.partition("%")[0]) == ipaddress.ip_address(each) for each in wanted)
