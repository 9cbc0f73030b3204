"""Listeners: whether each port is the daemon's, free, or another program's, and whose.

It is read from Linux's /proc: nothing is bound or connected to. What it is not: the daemon's own start, which tells the
same in its log. `examination.py` calls it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.app.doctor.findings import Finding, fail, ok, warn
from proxy.app.doctor.scene import Scene
from proxy.login import Fault

CHECK = "ports"
PROC = Path("/proc")
SOCKET_HOLDER = "systemd"  # a system's or a user's: it listens for mailferry.socket
_LISTEN = "0A"  # the kernel's state TCP_LISTEN
_FIRST_FREE_PORT = "sys/net/ipv4/ip_unprivileged_port_start"


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening TCP socket."""

    address: str
    port: int
    inode: int


@dataclass(frozen=True, slots=True)
class Program:
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def check_ports(scene: Scene, proc: Path = PROC) -> Iterator[Finding]:
    """Every listener, and the page."""
    wanted = [(f"{each.protocol} listener", each.address, each.port) for each in scene.config.listeners]
    if scene.config.page:
        wanted.append(("page", *scene.config.page))
    sockets = list(listening(proc))
    pid = scene.about.get("pid") if scene.about else None
    owners = owners_of({each.inode for each in sockets if each.port in {port for *_, port in wanted}}, proc)
    good = []
    for what, address, port in wanted:
        taken = [each for each in sockets if each.port == port and _overlap(address, each.address)]
        holders = {owner for each in taken if (owner := owners.get(each.inode))}
        strangers = sorted((owner for owner in holders if owner.pid != pid), key=lambda owner: owner.pid)
        title = f"Port {port} ({what})"
        if taken and not (pid and any(owner.pid == pid for owner in holders)):
            yield _taken(title, address, port, strangers, scene.running and pid is None)
        elif not taken and scene.running:
            yield fail(
                CHECK,
                title,
                f"The daemon runs but does not listen on {address}:{port}.",
                Fault.MAILFERRY,
                "The configuration was changed since it started, or the port was taken then: restart the daemon.",
            )
        elif not taken and _is_privileged(port, proc):
            yield warn(
                CHECK,
                title,
                "Only root, or who is allowed to, may listen below port 1024.",
                Fault.MAILFERRY,
                "Have systemd hold the port (systemd/install --sockets), or write a higher one.",
            )
        else:
            good.append(port)
    if good and scene.running:
        yield ok(CHECK, "Ports", f"The daemon listens on {', '.join(map(str, good))}.")
    elif good:
        yield ok(CHECK, "Ports", f"Free for the daemon: {', '.join(map(str, good))}.")


def listening(proc: Path = PROC) -> Iterator[Socket]:
    """All listening TCP sockets of this machine (of this network namespace)."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                raw, _, port = fields[1].partition(":")
                yield Socket(_address(raw, family), int(port, 16), int(fields[9]))


def owners_of(inodes: set[int], proc: Path = PROC) -> dict[int, Program]:
    """Which program holds each of these sockets, as far as we may see; systemd, which lends them, only if alone."""
    found: dict[int, Program] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for folder in proc.iterdir() if wanted else ():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(descriptor))
                    if inode is not None and (inode not in found or found[inode].name == SOCKET_HOLDER):
                        found[inode] = Program(int(folder.name), (folder / "comm").read_text().strip())
    return found


def _taken(title: str, address: str, port: int, strangers: list[Program], daemon_unknown: bool) -> Finding:
    if daemon_unknown:
        return ok(CHECK, title, "Somebody listens there; whether it is the daemon cannot be seen.")
    who = " and ".join(map(str, strangers)) or "a program of another user"
    if any(each.name == SOCKET_HOLDER for each in strangers):
        return fail(
            CHECK,
            title,
            f"systemd holds {address}:{port} for a service, and mailferry is not running or has no listener for it.",
            Fault.MAILFERRY,
            "`systemctl list-sockets` names the unit. If it is mailferry.socket: systemctl start mailferry.",
        )
    ends = f"Stop it ({' '.join(f'kill {each.pid}' for each in strangers)})" if strangers else "Stop it"
    return fail(
        CHECK,
        title,
        f"{address}:{port} is taken by {who}, so mailferry cannot listen there.",
        Fault.MAILFERRY,
        f"{ends}, or write another port for this listener.",
        details=() if strangers else ["As root, `mailferry doctor` can name it; so can: ss -ltnp"],
    )


def _address(raw: str, family: socket.AddressFamily) -> str:
    """The kernel's spelling: words of four octets in the machine's own order."""
    octets = b"".join(struct.pack("=I", int(raw[at : at + 8], 16)) for at in range(0, len(raw), 8))
    return socket.inet_ntop(family, octets)


def _overlap(wanted: str, taken: str) -> bool:
    """Whether a socket there keeps us from listening here."""
    if taken in ("0.0.0.0", "::") or wanted in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return True
    if wanted == "localhost":
        return taken in ("127.0.0.1", "::1")
    return wanted == taken


def _is_privileged(port: int, proc: Path) -> bool:
    if os.geteuid() == 0:
        return False
    try:
        first = int((proc / _FIRST_FREE_PORT).read_text())
    except (OSError, ValueError):
        first = 1024
    return port < first
