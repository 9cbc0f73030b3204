"""The benchmark, one command: `tests/bench/run [--quick] [--rows NAMES] [--peers NAMES] [--json FILE]`.

All peers stand before one upstream and are measured in turn, round by round (a noisy minute hits them all); the table
holds medians. It prints Markdown for the README and writes every figure as JSON. It is not part of `tests/run`: times
are never asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.identity import IdentityProvider

from . import client, mailbox, peers, report, siege
from .client import MIB, Door

BENCH = Path(__file__).resolve().parent
MBSYNC = "mbsync"
PROXIES: tuple[type[peers.Peer], ...] = (peers.Dovecot, peers.Emailproxy, peers.Mailferry)
PEERS: tuple[type[peers.Peer], ...] = (peers.Direct, *PROXIES)
SETTLE_S = 0.3  # a door that closed sessions gets its CPU counted before the next one starts


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done; `FULL` is what SPEED.md's goals are about."""

    rounds: int
    transfer_octets: int
    """Per measurement, in all sessions together."""
    noops: int
    logins: int
    login_budget_s: float
    burst: int
    idle_sample: int
    idle_hold: int
    stall_s: int
    close_octets: int
    messages: int
    refusals: int
    restarts: bool
    """Memory is measured on fresh processes, and goals mean something."""


FULL = Scale(3, 512 * MIB, 2_000, 300, 5.0, 200, 2_000, 5_000, 10, 64 * MIB, 5_000, 100, True)
QUICK = Scale(1, 32 * MIB, 200, 30, 1.0, 5, 50, 100, 1, 8 * MIB, 200, 10, False)


@dataclass(frozen=True, slots=True)
class Row:
    measure: Callable[[peers.Peer, Door, Scale], dict[str, float]]
    tls: bool = False
    """Measured through mailferry's TLS doors too."""
    fresh: bool = False
    """About memory: each peer starts anew for it, and once is enough."""
    of: Sequence[type[peers.Peer]] = PEERS
    """Whom it means something for."""


def _transfer(sessions: int, upload: bool) -> Row:
    def measure(peer: peers.Peer, door: Door, scale: Scale) -> dict[str, float]:
        octets = scale.transfer_octets // sessions
        return client.transfer(door, peer.cpu_s, octets=octets, sessions=sessions, upload=upload)

    return Row(measure, tls=True)


def _idle(peer: peers.Peer, door: Door, scale: Scale) -> dict[str, float]:
    sample, hold = scale.idle_sample, scale.idle_hold
    return client.idle(door, peer.rss, sample=sample, hold=hold, openers=peer.openers, log_in=peer.idle_logs_in)


ROWS = {
    "download-1": _transfer(1, upload=False),
    "download-8": _transfer(8, upload=False),
    "upload-1": _transfer(1, upload=True),
    "upload-8": _transfer(8, upload=True),
    "noop": Row(lambda _, door, scale: client.noop(door, count=scale.noops), tls=True),
    "login": Row(
        lambda peer, door, scale: client.logins(door, peer.cpu_s, count=scale.logins, budget_s=scale.login_budget_s),
        tls=True,
    ),
    "half-close": Row(lambda _, door, scale: client.half_close(door, octets=scale.close_octets)),
    "upstream-close": Row(lambda _, door, scale: client.upstream_close(door, octets=scale.close_octets)),
    "burst": Row(lambda _, door, scale: client.burst(door, count=scale.burst), fresh=True),
    "stall-download": Row(
        lambda peer, door, scale: client.stalled_download(
            door, peer.cpu_s, peer.rss, octets=512 * MIB, for_s=scale.stall_s
        ),
        fresh=True,
        of=PROXIES,
    ),
    "stall-upload": Row(
        lambda peer, door, scale: client.stalled_upload(
            door, peer.cpu_s, peer.rss, octets=256 * MIB, for_s=scale.stall_s
        ),
        fresh=True,
        of=PROXIES,
    ),
    "idle": Row(_idle, fresh=True, of=PROXIES),
    "attack": Row(
        lambda peer, door, scale: siege.under_attack(
            door, peer.cpu_s, peer.restart, count=scale.logins, budget_s=scale.login_budget_s
        ),
        of=(peers.Dovecot, peers.Mailferry),  # emailproxy refuses its owner once the attacker was there
    ),
    "refusals": Row(lambda _peer, _door, scale: siege.refusals(count=scale.refusals), of=(peers.Mailferry,)),
    MBSYNC: Row(lambda peer, door, scale: mailbox.mbsync(door, peer.ground.certificate.ca_file, scale.messages)),
}


@contextlib.contextmanager
def _upstream(certificate: LocalCertificate) -> Iterator[int]:
    """The fake upstream in a process of its own: its port."""
    command = [sys.executable, str(BENCH / "upstream.py"), str(certificate.file), str(certificate.key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _warm(peer: peers.Peer) -> None:
    """One session of each kind: code is loaded, the token cached, the password remembered."""
    for door in peer.doors().values():
        with client.Session(door) as session:
            session.log_in()
            session.fetch(4 * MIB)
            session.append(4 * MIB)


def _measure(row: Row, peer: peers.Peer, scale: Scale) -> Iterator[tuple[str, dict[str, float]]]:
    if row.fresh and scale.restarts:
        peer.restart()
        _warm(peer)
    for name, door in peer.doors().items():
        if name == peer.name or row.tls:
            yield name, row.measure(peer, door, scale)
            time.sleep(SETTLE_S)


def _stand(kinds: Sequence[type[peers.Peer]], ground: peers.Ground, stack: contextlib.ExitStack) -> list[peers.Peer]:
    """These peers, started before this ground's upstream, until the stack is closed."""
    standing = []
    for kind in kinds:
        peer = kind(ground)
        stack.callback(peer.stop)
        peer.start()
        standing.append(peer)
    return standing


def _run(
    rows: Sequence[str], standing: dict[str, list[peers.Peer]], scale: Scale
) -> dict[str, dict[str, list[report.Figures]]]:
    """Every round of every row at every door; `standing` tells the peers of each row."""
    rounds: dict[str, dict[str, list[report.Figures]]] = {}
    for name in rows:
        row, doors = ROWS[name], rounds.setdefault(name, {})
        for turn in range(1 if row.fresh else scale.rounds):
            for peer in (each for each in standing[name] if isinstance(each, tuple(row.of))):
                print(f"{name}, round {turn + 1}: {peer.name}", file=sys.stderr)
                try:
                    for door, figures in _measure(row, peer, scale):
                        doors.setdefault(door, []).append(figures)
                except (OSError, client.Lost) as error:
                    print(f"  failed: {error!r}", file=sys.stderr)
                    peer.restart()
    return rounds


def _can_run(kind: type[peers.Peer]) -> bool:
    if kind.prepare():
        return True
    print(f"{kind.name} cannot run here: left out", file=sys.stderr)
    return False


def _before_mailbox(
    kinds: Sequence[type[peers.Peer]], ground: peers.Ground, scale: Scale, stack: contextlib.ExitStack
) -> list[peers.Peer]:
    """The same peers once more, before a real mailbox; none if it cannot run here."""
    if not _can_run(mailbox.Mailbox):
        return []
    real = mailbox.Mailbox(ground, scale.messages)
    stack.callback(real.stop)
    real.start()
    mailbox.mbsync(real.doors()[real.name], ground.certificate.ca_file, scale.messages)  # Dovecot fills its caches
    folder = ground.folder / "before-mailbox"
    folder.mkdir(mode=0o711)
    return _stand(kinds, dataclasses.replace(ground, folder=folder, upstream_port=real.port), stack)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--quick", action="store_true", help="little of everything, one round: does it work?")
    parser.add_argument("--rows", type=_names, default=list(ROWS), help="of " + ",".join(ROWS))
    parser.add_argument(
        "--peers", type=_names, default=[p.name for p in PEERS], help="of " + ",".join(p.name for p in PEERS)
    )
    parser.add_argument("--json", type=Path, default=BENCH / "results.json", help="where every figure goes")
    arguments = parser.parse_args()
    if unknown := {*arguments.rows} - {*ROWS} or {*arguments.peers} - {p.name for p in PEERS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    arguments = _arguments()
    scale = QUICK if arguments.quick else FULL
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailferry-bench-")))
        folder.chmod(0o711)
        certificate = local_certificate(folder)
        identity = stack.enter_context(IdentityProvider(folder))
        identity.add_app(peers.APPLICATION_ID, public=False, secret=peers.SECRET, app_only=True, may_open=[peers.LOGIN])
        ground = peers.Ground(folder, certificate, stack.enter_context(_upstream(certificate)), identity.authority)
        kinds = [kind for kind in PEERS if kind.name in arguments.peers and _can_run(kind)]
        standing = dict.fromkeys(arguments.rows, _stand(kinds, ground, stack))
        for peer in next(iter(standing.values())):
            _warm(peer)
        if MBSYNC in standing:
            standing[MBSYNC] = _before_mailbox(kinds, ground, scale, stack)
        rounds = _run(arguments.rows, standing, scale)
        versions = {kind.name: kind.version() for kind in kinds}
    doors = list(dict.fromkeys(door for of_row in rounds.values() for door in of_row))
    medians = {row: {door: report.median(of) for door, of in doors.items()} for row, doors in rounds.items()}
    print(report.table(medians, doors))
    if scale.restarts:
        print("", report.goals(medians), sep="\n")
    else:
        print("\nA quick run proves that the bench works; its figures are too small to judge by.")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
    document = {
        "versions": versions,
        "machine": machine,
        "scale": dataclasses.asdict(scale),
        "medians": medians,
        "rounds": rounds,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
