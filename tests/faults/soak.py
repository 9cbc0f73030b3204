"""A day's life in little time: thousands of sessions over all three protocols while tokens end every minute.

    tests/faults/soak [--minutes 30] [--rate 4] [--accounts 12]

Each session does something and checks it octet for octet: IMAP appends, fetches and removes; POP3 retrieves and
removes; SMTP sends, and the mail arrives. Some sessions stay open beyond their token's life; now and then somebody
tries a wrong password. Memory, descriptors and threads of the daemon are sampled all the while. The exit code is 0 if
they are flat and no login failed that should have worked.
"""

from __future__ import annotations

import argparse
import imaplib
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.fleet import Fleet, Host, new_folder
from tests.faults.programs import DELIVERY_S, Ledger, Programs, fetched, leave_imap, new_mail
from tests.servers.child import wait_until
from tests.servers.mailhost import Person

TOKEN_LIFE_S = 60
WARM_UP_S = (
    180.0  # threads are started and caches filled when they are first wanted; all of it within three token lives
)
SAMPLE_S = 5.0
WORKERS = 6
HELD = 20
HOLD_EVERY_S = 6.0  # 20 × 6 s: a held session outlives its token
WRONG_EVERY_S = 20.0
MAX_RSS_GROWTH = 0.05
MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    rss_kib: int
    fds: int
    threads: int
    sessions: int


@dataclass
class Tally:
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    let_in: int = 0
    """Strangers; must stay 0."""
    samples: list[Sample] = field(default_factory=list)


def sample(pid: int, started_s: float, sessions: int) -> Sample:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(time.monotonic() - started_s, int(fields["VmRSS"].split()[0]), fds, int(fields["Threads"]), sessions)


class Soak:
    def __init__(self, fleet: Fleet, rate: float) -> None:
        self._fleet = fleet
        self._rate = rate
        self._programs = Programs(fleet.ports, fleet.client_context())
        self._ledger = Ledger(fleet.host.dovecot)
        self._boxes = {person.upn: threading.Lock() for person in fleet.people}
        self._ending = threading.Event()
        self.tally = Tally()

    def run(self, for_s: float) -> None:
        started_s = time.monotonic()
        jobs = [self._work] * WORKERS + [self._hold, self._attack]
        threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for each in threads:
            each.start()
        assert self._fleet.daemon is not None
        pid = self._fleet.daemon.process.pid
        next_s = started_s
        while (now := time.monotonic()) < started_s + for_s:
            done = sum(self.tally.done.values())
            self.tally.samples.append(sample(pid, started_s, done))
            if len(self.tally.samples) % (60 / SAMPLE_S) == 0:
                print(_line(self.tally.samples[-1], len(self.tally.failures)), flush=True)
            next_s += SAMPLE_S
            self._ending.wait(max(0.0, next_s - now))
        self._ending.set()
        for each in threads:
            each.join(90)

    def _work(self) -> None:
        pause_s = WORKERS / self._rate
        while not self._ending.wait(random.uniform(0.5, 1.5) * pause_s):
            person = random.choice(self._fleet.people)
            kind = random.choice(("imap", "imap", "pop3", "smtp"))
            tls = random.random() < 0.5
            # One program for a mailbox at a time: POP3 locks it, and messages are removed.
            session: Callable[[Person, bool], None] = getattr(self, f"_{kind}")
            with self._boxes[person.upn]:
                self._count(f"{kind}{' TLS' if tls else ''}", partial(session, person, tls))

    def _count(self, kind: str, session: Callable[[], None]) -> None:
        try:
            session()
        except Exception as error:
            self.tally.failures.append(f"{kind}: {type(error).__name__}: {error}")
            print(self.tally.failures[-1], flush=True)
        else:
            self.tally.done[kind] += 1

    def _imap(self, person: Person, tls: bool) -> None:
        mail = new_mail(random.choice((500, 4_000, 60_000)))
        client = self._programs.imap(person, tls=tls)
        try:
            assert client.append("INBOX", "", "", mail.octets)[0] == "OK"
            assert fetched(client, mail), "a message came otherwise than it went"
            client.store("1:*", "+FLAGS.SILENT", r"(\Deleted)")
            assert client.expunge()[0] == "OK"
        finally:
            leave_imap(client)

    def _pop3(self, person: Person, tls: bool) -> None:
        mail = new_mail(4_000)
        self._ledger.deliver(person, mail)
        client = self._programs.pop3(person, tls=tls)
        count = client.stat()[0]
        lines = client.retr(count)[1]
        assert mail.octets in b"\r\n" + b"".join(line + b"\r\n" for line in lines), (
            "a message came otherwise than it lies"
        )
        for number in range(1, count + 1):
            client.dele(number)
        client.quit()
        self._ledger.forget(person, mail)

    def _smtp(self, person: Person, tls: bool) -> None:
        mail = new_mail(random.choice((500, 4_000)))
        self._programs.send(self._ledger, person, mail, tls=tls)
        wait_until("the mail arrives", lambda: self._ledger.holds(person, mail), DELIVERY_S)
        self._ledger.forget(person, mail)

    def _hold(self) -> None:
        """Sessions that stay while their token ends."""
        held: deque[imaplib.IMAP4] = deque()
        while not self._ending.wait(HOLD_EVERY_S):
            person = random.choice(self._fleet.people)

            def begin(person: Person = person) -> None:
                client = self._programs.imap(person)
                client.select("INBOX")
                held.append(client)

            self._count("imap held", begin)
            if len(held) > HELD:
                self._count("imap held to the end", lambda: _let_go(held.popleft()))
        while held:
            self._count("imap held to the end", lambda: _let_go(held.popleft()))

    def _attack(self) -> None:
        number = 0
        while not self._ending.wait(WRONG_EVERY_S):
            number += 1
            person = random.choice(self._fleet.people)
            if not self._programs.turned_away(person, f"127.0.3.{number % 250 + 1}"):
                self.tally.let_in += 1


def _let_go(client: imaplib.IMAP4) -> None:
    kind, _ = client.noop()
    assert kind == "OK"
    client.logout()


def _line(one: Sample, failures: int) -> str:
    return (
        f"{one.at_s:6.0f} s  {one.sessions:6d} sessions  RSS {one.rss_kib} KiB  fds {one.fds}  "
        f"threads {one.threads}  failures {failures}"
    )


def growth(values: Sequence[float]) -> float:
    """Of the last tenth's median over the first tenth's, after the warm-up."""
    tenth = max(1, len(values) // 10)
    return statistics.median(values[-tenth:]) / statistics.median(values[:tenth]) - 1


def judge(tally: Tally, refreshes: int, accounts: int, minutes: float) -> int:
    """Print what was found; the exit code."""
    warm = [one for one in tally.samples if one.at_s >= min(WARM_UP_S, minutes * 60 / 4)]
    print(f"\n{sum(tally.done.values())} sessions in {minutes:g} minutes over {accounts} accounts:")
    for kind, count in sorted(tally.done.items()):
        print(f"  {kind}: {count}")
    print(f"token refreshes: {refreshes} (tokens end after {TOKEN_LIFE_S} s)")
    print("\n| | first | last | median | most | growth |\n|---|---|---|---|---|---|")
    flat = True
    for name, values in (
        ("RSS, MiB", [one.rss_kib / 1024 for one in warm]),
        ("descriptors", [float(one.fds) for one in warm]),
        ("threads", [float(one.threads) for one in warm]),
    ):
        grown = growth(values)
        print(
            f"| {name} | {values[0]:.1f} | {values[-1]:.1f} | {statistics.median(values):.1f} | {max(values):.1f} "
            f"| {100 * grown:+.1f} % |"
        )
        flat = flat and (grown < MAX_RSS_GROWTH if name.startswith("RSS") else grown < 0.25)
    print(f"\nlogins and sessions that failed and should have worked: {len(tally.failures)}")
    for failure in tally.failures[:MAX_SHOWN]:
        print(f"  {failure}")
    print(f"strangers let in: {tally.let_in}")
    return 0 if flat and not tally.failures and not tally.let_in else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/faults/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=4.0, help="sessions a second")
    parser.add_argument("--accounts", type=int, default=12)
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no server is left behind
    with Host(access_token_lifetime_s=TOKEN_LIFE_S, strict=True) as host, new_folder() as folder, ExitStack() as stack:
        people = [host.new_person() for _ in range(asked.accounts)]
        fleet = Fleet(folder, host, people, level="info")
        fleet.serve()
        stack.callback(fleet.kill_if_left)
        fleet.sign_everybody_in()
        before = len(host.identity.requests)
        soak = Soak(fleet, asked.rate)
        soak.run(asked.minutes * 60)
        assert fleet.daemon is not None
        away = fleet.awaiting_sign_in()
        if away:
            soak.tally.failures.append(f"grants lost: {away}")
        code = judge(soak.tally, host.identity.refreshes(before), asked.accounts, asked.minutes)
        for line in fleet.log_lines("Traceback")[:3] + fleet.log_lines(" error ")[:10]:
            print(f"log: {line}")
        stopped = fleet.stop()
    return code or stopped


if __name__ == "__main__":
    sys.exit(main())
