"""The measuring mail program: opens sessions through a door (a proxy, or the upstream itself) and measures them.

What it is: blocking sockets, threads where sessions are many, and one function for each kind of measurement, which
returns plain figures in their units. What it is not: a judge: medians, ratios and goals are in `report.py`.
`__main__` calls it.

A transfer is measured between the first octet asked for and the last reply, logins excluded. CPU is what `cpu_s` of the
caller says: the proxy's processes as /proc counts them, or this very process for the direct row.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

PIECE_OCTETS = 262_144
PATIENCE_S = 60.0  # longer than any good answer; a session that waits so long counts as lost
BURST_PATIENCE_S = 30.0  # SPEED: "of 200 within 30 s"
REST_PATIENCE_S = 10.0  # for octets that a proxy may never deliver
MIB = 1_048_576
GIB = 1_073_741_824

_PIECE = memoryview(b"y" * PIECE_OCTETS)

Cpu = Callable[[], float]
"""CPU seconds used so far by what is measured."""
Rss = Callable[[], int]
"""Octets of resident memory now."""


class Lost(Exception):
    """The session ended, or answered something else than OK."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where and how a session is opened."""

    port: int
    tls: Literal["off", "implicit", "starttls"]
    context: ssl.SSLContext | None
    """Trust for the TLS doors."""
    login: bytes
    """The command that logs in, without its tag."""


class Session:
    """One IMAP session, greeted; a context manager that closes it."""

    def __init__(self, door: Door, patience_s: float = PATIENCE_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", door.port), patience_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self._login = door.login
        try:
            if door.tls == "implicit":
                self._wrap(door)
            self.line()
            if door.tls == "starttls":
                self.ask(b"STARTTLS")
                self._wrap(door)
        except BaseException:
            self.close()
            raise

    def _wrap(self, door: Door) -> None:
        assert door.context
        self.socket = door.context.wrap_socket(self.socket, server_hostname="localhost")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def line(self) -> bytes:
        """The next line. Raises: Lost."""
        while b"\n" not in self._unread:
            data = self.socket.recv(65_536)
            if not data:
                raise Lost("closed")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def ask(self, command: bytes) -> None:
        """Send a command and read up to its tagged OK. Raises: Lost."""
        self.socket.sendall(b"t " + command + b"\r\n")
        self._finish()

    def _finish(self) -> None:
        while not (line := self.line()).startswith(b"t "):
            pass
        if not line.startswith(b"t OK"):
            raise Lost(line[:400].decode("ascii", "replace"))

    def log_in(self) -> None:
        self.ask(self._login)

    def fetch(self, octets: int) -> None:
        """Read a literal of so many octets."""
        self.request(octets)
        if self.rest_of_literal(octets) < octets:
            raise Lost("in the middle of a literal")
        self._finish()

    def request(self, octets: int) -> None:
        self.socket.sendall(b"t FETCH 1 (BODY.PEEK[]<0.%d>)\r\n" % octets)

    def rest_of_literal(self, octets: int) -> int:
        """Read a literal whose line comes next, or what comes of it; returns how many octets that is."""
        came, buffer = 0, memoryview(bytearray(PIECE_OCTETS))
        with contextlib.suppress(OSError, Lost):
            self.line()
            came = min(len(self._unread), octets)
            self._unread = self._unread[came:]
            while came < octets and (count := self.socket.recv_into(buffer[: octets - came])):
                came += count
        return came

    def append(self, octets: int, mailbox: bytes = b"INBOX") -> None:
        """Upload a literal of so many octets."""
        self.socket.sendall(b"t APPEND %b {%d}\r\n" % (mailbox, octets))
        self.line()
        left = octets
        while left > 0:
            self.socket.sendall(_PIECE[:left])
            left -= PIECE_OCTETS
        self.socket.sendall(b"\r\n")
        self._finish()


@contextlib.contextmanager
def _sessions(door: Door, count: int) -> Iterator[list[Session]]:
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(Session(door)) for _ in range(count)]
        for session in sessions:
            session.log_in()
        yield sessions


def transfer(door: Door, cpu_s: Cpu, *, octets: int, sessions: int, upload: bool) -> dict[str, float]:
    """Move so many octets in each of the sessions at once: MB/s in all, and CPU seconds per GiB."""

    def move(session: Session) -> None:
        if upload:
            session.append(octets)
        else:
            session.fetch(octets)

    with _sessions(door, sessions) as opened, ThreadPoolExecutor(sessions) as pool:
        for session in opened:
            session.ask(b"NOOP")
        cpu, start = cpu_s(), time.perf_counter()
        list(pool.map(move, opened))
        wall_s, used_s = time.perf_counter() - start, cpu_s() - cpu
    total = octets * sessions
    return {"mb_per_s": total / 1e6 / wall_s, "cpu_s_per_gib": used_s * GIB / total}


def noop(door: Door, *, count: int) -> dict[str, float]:
    """Round trips of NOOP on one idle session: the median in microseconds."""
    took = []
    with _sessions(door, 1) as (session,):
        for _ in range(count):
            start = time.perf_counter()
            session.ask(b"NOOP")
            took.append(time.perf_counter() - start)
    return {"us": statistics.median(took) * 1e6}


def logins(door: Door, cpu_s: Cpu, *, count: int, budget_s: float) -> dict[str, float]:
    """Connect, log in, log out, again and again: median of connect to OK, and CPU of a whole session, in ms."""
    with Session(door) as session:  # the first one verifies the password and gets the token
        session.log_in()
    took: list[float] = []
    cpu, first = cpu_s(), time.perf_counter()
    while len(took) < count and time.perf_counter() - first < budget_s:
        start = time.perf_counter()
        with Session(door) as session:
            session.log_in()
            took.append(time.perf_counter() - start)
            session.ask(b"LOGOUT")
    return {"ms": statistics.median(took) * 1e3, "cpu_ms": (cpu_s() - cpu) / len(took) * 1e3}


def burst(door: Door, *, count: int) -> dict[str, float]:
    """So many logins at the same moment: how many succeed within `BURST_PATIENCE_S`, and when the last one did."""
    gate, leave = threading.Barrier(count + 1), threading.Event()
    done_at: list[float] = []

    def log_in() -> None:
        gate.wait()
        with contextlib.suppress(OSError, Lost), Session(door, BURST_PATIENCE_S) as session:
            session.log_in()
            done_at.append(time.perf_counter())
            leave.wait()  # nobody leaves before the last one came

    threads = [threading.Thread(target=log_in, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    gate.wait()
    start = time.perf_counter()
    while len(done_at) < count and time.perf_counter() - start < BURST_PATIENCE_S:
        time.sleep(0.01)
    in_time = [moment - start for moment in done_at]
    leave.set()
    for thread in threads:
        thread.join()
    return {"succeeded": len(in_time), "of": count, "s": max(in_time, default=BURST_PATIENCE_S)}


def idle(door: Door, rss: Rss, *, sample: int, hold: int, openers: int, log_in: bool) -> dict[str, float]:
    """Open sessions and leave them: KiB of growth for each of the first `sample`, and how many of `hold` still answer.

    `openers` sessions are opened side by side. `log_in` False only connects: for a proxy whose logins take too long.
    """
    opened: list[Session] = []
    broken = threading.Event()

    def open_one(_: int) -> None:
        if broken.is_set():
            return
        try:
            session = Session(door, 10)
        except (OSError, Lost):
            broken.set()
            return
        opened.append(session)
        try:
            if log_in:
                session.log_in()
        except (OSError, Lost):
            broken.set()

    def answers(session: Session) -> bool:
        try:
            session.ask(b"NOOP")
        except (OSError, Lost):
            return False
        return True

    try:
        with ThreadPoolExecutor(openers) as pool:
            before = rss()
            list(pool.map(open_one, range(sample)))
            first = len(opened)
            grown = rss() - before
            list(pool.map(open_one, range(hold - sample)))
            held = sum(pool.map(answers, opened))
    finally:
        for session in opened:
            session.close()
    return {"kib_per_session": grown / 1024 / max(first, 1), "sampled": first, "held": held, "of": hold}


def stalled_download(door: Door, cpu_s: Cpu, rss: Rss, *, octets: int, for_s: float) -> dict[str, float]:
    """Ask for a literal and read nothing: growth of the proxy's memory in MiB, and the CPU seconds it burns."""
    with _sessions(door, 1) as (session,):
        session.fetch(8 * MIB)
        before, cpu = rss(), cpu_s()
        session.request(octets)
        return {"mib": (_peak(rss, for_s) - before) / MIB, "cpu_s": cpu_s() - cpu}


def stalled_upload(door: Door, cpu_s: Cpu, rss: Rss, *, octets: int, for_s: int) -> dict[str, float]:
    """Upload to an upstream that reads nothing: growth of the proxy's memory in MiB, and the CPU seconds it burns."""
    with _sessions(door, 1) as (session,):
        session.append(8 * MIB)
        before, cpu = rss(), cpu_s()

        def send() -> None:
            with contextlib.suppress(OSError, Lost):
                session.append(octets, b"STALL%d" % (for_s + 10))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        figures = {"mib": (_peak(rss, for_s) - before) / MIB, "cpu_s": cpu_s() - cpu}
        socket.socket.shutdown(session.socket, socket.SHUT_RDWR)
        sender.join()
    return figures


def _peak(rss: Rss, for_s: float) -> int:
    peak, end = 0, time.perf_counter() + for_s
    while time.perf_counter() < end:
        peak = max(peak, rss())
        time.sleep(0.1)
    return peak


def half_close(door: Door, *, octets: int) -> dict[str, float]:
    """Ask for a literal, send FIN, read on: how many of its octets come (a bare FIN, on TLS doors too)."""
    with _sessions(door, 1) as (session,):
        session.socket.settimeout(REST_PATIENCE_S)
        session.request(octets)
        socket.socket.shutdown(session.socket, socket.SHUT_WR)
        return {"came": session.rest_of_literal(octets), "of": octets}


def upstream_close(door: Door, *, octets: int) -> dict[str, float]:
    """Ask for a literal and log out behind it, read late: how many octets come after upstream itself has closed."""
    with _sessions(door, 1) as (session,):
        session.socket.settimeout(REST_PATIENCE_S)
        session.request(octets)
        session.socket.sendall(b"u LOGOUT\r\n")
        time.sleep(1)
        return {"came": session.rest_of_literal(octets), "of": octets}
