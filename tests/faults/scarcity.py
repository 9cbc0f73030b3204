"""What the machine lacks: room on the disk, file descriptors. Not a test."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.fleet import Fleet, Host
from tests.faults.programs import fetched, leave_imap, new_mail
from tests.faults.scene import Finding, Scene, scene
from tests.servers.child import wait_until

DISK_OCTETS = 1 << 20
DESCRIPTORS = 80  # the daemon at rest has some 25
STRANGERS = 120
SPIN_S = 1.0
MAX_CPU_SHARE = 0.5  # of one core, while nothing can be accepted


def full_disk(host: Host, times: int) -> Finding:
    """The state folder is a small tmpfs, and full while tokens are refreshed; refresh tokens are good for one use."""
    folders: list[Path] = []

    def prepare(fleet: Fleet) -> None:
        fleet.state_dir.mkdir(mode=0o700)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_OCTETS},mode=700", "tmpfs", str(fleet.state_dir)], check=True
        )
        folders.append(fleet.state_dir)

    host.identity.be_strict(True)
    try:
        with host.identity.short_lived_tokens(), scene(host, people=1, prepare=prepare) as one:
            for _ in range(times):
                with _filled(one.fleet.state_dir):
                    for _ in range(2):
                        one.expect(one.all_work(), "a login on a full disk did not work from memory")
                one.expect(one.all_work(), "a login did not work when there was room again")
                # Refresh tokens are good once: had the last ones not been stored now, the grants would be lost.
                one.expect(one.fleet.stop() == 0, "mailferry did not stop cleanly")
                one.fleet.serve()
            one.expect(one.fleet.log_lines("grant not saved"), "the full disk was not told of")
            return one.judge("disk full", times, "logins from memory; stored when there is room")
    finally:
        host.identity.be_strict(False)
        for folder in folders:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, suppress(OSError):
        for size in (4_096, 1):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


def no_descriptors(host: Host, times: int) -> Finding:
    """Strangers take all descriptors there are. Sessions go on, the daemon does not spin, and then all is as before."""

    def prepare(fleet: Fleet) -> None:
        fleet.before = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")

    with scene(host, people=1, prepare=prepare) as one:
        for _ in range(times):
            (person, *_) = one.people
            mail = one.lying(person, 50_000)
            client = one.programs.imap(person)
            with _strangers(one):
                one.expect(fetched(client, mail), "a running session stopped")
                _expect_rest(one)
                sent = new_mail(20_000)
                with one.ledger.sending(person, sent):
                    one.expect(client.append("INBOX", "", "", sent.octets)[0] == "OK", "a running session stopped")
            leave_imap(client)
            wait_until("logins work again", one.all_work)
        return one.judge("file descriptors exhausted", times, f"{STRANGERS} connections on {DESCRIPTORS} descriptors")


@contextmanager
def _strangers(one: Scene) -> Iterator[None]:
    """Connections that say nothing, until no descriptor is left."""
    clients = []
    try:
        for number in range(STRANGERS):
            client = socket.socket()
            client.settimeout(2.0)
            clients.append(client)
            client.connect(("127.0.0.1", one.fleet.ports["imap" if number % 2 else "smtp"]))
        wait_until("no descriptor is left", lambda: _descriptors(one) >= DESCRIPTORS - 2)
        yield
    finally:
        for client in clients:
            client.close()


def _descriptors(one: Scene) -> int:
    assert one.fleet.daemon is not None
    return len(os.listdir(f"/proc/{one.fleet.daemon.process.pid}/fd"))


def _cpu_s(one: Scene) -> float:
    assert one.fleet.daemon is not None
    fields = Path(f"/proc/{one.fleet.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _expect_rest(one: Scene) -> None:
    before = _cpu_s(one)
    threading.Event().wait(SPIN_S)
    share = (_cpu_s(one) - before) / SPIN_S
    one.expect(share < MAX_CPU_SHARE, f"the daemon spins: {share:.0%} of a core")
