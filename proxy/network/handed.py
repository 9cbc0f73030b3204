"""Sockets that systemd listens on for us and hands over at the start (sd_listen_fds(3)): socket activation.

They outlive this process: who connects while mailferry restarts waits in the kernel's queue, and is served by the
next one. `daemon.py` takes them once, `doors.py` finds who wants them. What they are not: a reason to listen; the
configuration says where.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence

from proxy.log import Log

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""
MAX_SOCKETS = 1024  # more is no number of sockets but nonsense in a variable
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

Handed = Sequence[tuple[str, socket.socket]]
"""Each socket with the name that its socket unit gives it."""

log = Log("listener")


def take(environ: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR) -> Handed:
    """What was handed to this process. The variables are taken away, so that no child believes they are for it."""
    pid, count, names = (environ.pop(variable, "") for variable in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) > MAX_SOCKETS:
        return []
    given = names.split(":") if names else []
    return [
        (given[index] if index < len(given) else "unknown", sock)
        for index in range(int(count))
        if (sock := _listening(first + index)) is not None
    ]


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
