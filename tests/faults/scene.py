"""What every fault is tried on, and how it is judged. Not a test.

A fault is a function that takes a `Scene` and a count, injects itself so often while mail programs are at work, and
gives its `Finding`. The judgement is the same for all: every mailbox is read from Dovecot's disk and held against what
servers said yes to, each account logs in by all three protocols without a new sign-in, no right password was called
wrong, and no stranger came in.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from tests.faults.fleet import Fleet, Host, new_folder
from tests.faults.programs import Ledger, Mail, Programs, Trouble, fetched, leave_imap, new_mail
from tests.servers.child import tail, wait_until
from tests.servers.mailhost import Person

RECOVERY_S = 60.0
JOIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the table."""

    fault: str
    injected: int
    logins: int
    """That came through, during the fault and after it."""
    acknowledged: int
    """Messages that a server said yes to, each then found octet for octet."""
    unacknowledged: int
    """Messages whose sending the fault cut; whole in the mailbox, or not at all."""
    wrong: tuple[str, ...] = ()
    """All that was lost, altered, doubled or let in; must be empty."""
    note: str = ""


@dataclass
class Scene:
    """A running fleet, its mail programs, and their ledger. `wrong` collects what must not be."""

    host: Host
    fleet: Fleet
    programs: Programs
    ledger: Ledger
    wrong: list[str] = field(default_factory=list)

    @property
    def people(self) -> list[Person]:
        return self.fleet.people

    def restart(self) -> None:
        self.fleet.kill()
        self.fleet.serve()

    def wait_for_a_login(self) -> None:
        """One that comes through from now on."""
        before = self.programs.logins
        wait_until("a login", lambda: self.programs.logins > before, RECOVERY_S)

    def lying(self, person: Person, size_octets: int) -> Mail:
        """A new message in this person's mailbox, put there past mailferry."""
        mail = new_mail(size_octets)
        self.ledger.deliver(person, mail)
        return mail

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Programs log in, send, append and fetch all the while, whatever becomes of it."""
        ending = threading.Event()
        threads = [
            threading.Thread(target=self._sail, args=(person, kind, ending), daemon=True)
            for person in self.people
            for kind in ("append", "send", "fetch")
        ]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            ending.set()
            for each in threads:
                each.join(JOIN_S)
            self.expect(not any(each.is_alive() for each in threads), "a mail program hangs")

    def _sail(self, person: Person, kind: str, ending: threading.Event) -> None:
        while not ending.wait(random.uniform(0.0, 0.05)):
            with suppress(*Trouble):
                match kind:
                    case "append":
                        self.programs.append(self.ledger, person, new_mail(random.choice((2_000, 90_000))))
                    case "send":
                        self.programs.send(self.ledger, person, new_mail(2_000))
                    case _:
                        self.read(person)

    def read(self, person: Person) -> None:
        """Fetch the newest message. Whatever comes as whole must be one that lies there."""
        client = self.programs.imap(person)
        try:
            count = client.select("INBOX")[1][0]
            if count and int(count):
                _, data = client.fetch(count.decode(), "(BODY.PEEK[])")
                if data and isinstance(data[0], tuple):
                    came = data[0][1]
                    self.expect(
                        self.ledger.lies(person, came), f"{person.upn} was given a message that does not lie there"
                    )
        finally:
            leave_imap(client)

    def all_work(self) -> bool:
        """Everybody at once, each by all three protocols."""
        with ThreadPoolExecutor(len(self.people)) as pool:
            return all(list(pool.map(self.works_again, self.people)))

    def works_again(self, person: Person) -> bool:
        """One message by each protocol, octet for octet."""
        mail, sent = new_mail(3_000), new_mail(3_000)
        try:
            self.programs.append(self.ledger, person, mail)
            self.programs.send(self.ledger, person, sent)
            client = self.programs.imap(person)
            self.expect(fetched(client, mail), f"{person.upn}: a message is fetched otherwise than it was appended")
            leave_imap(client)
            box = self.programs.pop3(person)
            count = box.stat()[0]
            came = b"".join(line + b"\r\n" for line in box.retr(count)[1])
            self.expect(self.ledger.lies(person, came), f"{person.upn}: POP3 gives another message than lies there")
            box.quit()
        except Trouble:
            return False
        return True

    def judge(self, fault: str, injected: int, note: str = "") -> Finding:
        """The daemon serves, and the fault is over."""
        with ThreadPoolExecutor(1) as pool:
            turned_away = pool.submit(self.programs.turned_away, self.people[0], "127.0.4.1")
            wait_until("everybody works again", self.all_work, RECOVERY_S)
            self.expect(turned_away.result(), "a stranger was let in")
        with suppress(AssertionError):
            self.ledger.wait_delivered()
        for what, found in (
            ("lost", self.ledger.lost()),
            ("altered", self.ledger.altered()),
            ("doubled", self.ledger.doubled()),
        ):
            self.wrong.extend(f"{what}: {each!r}" for each in found)
        self.wrong.extend(f"grant lost: {login}" for login in self.fleet.awaiting_sign_in())
        self.wrong.extend(f"a right password was called wrong: {text}" for text in self.programs.blamed)
        self.expect("Traceback" not in self.fleet.log, f"a traceback in the log:\n{tail(self.fleet.log_file)}")
        return Finding(
            fault,
            injected,
            self.programs.logins,
            self.ledger.acknowledged,
            self.ledger.unacknowledged,
            tuple(self.wrong),
            note,
        )


@contextmanager
def scene(
    host: Host,
    *,
    people: int = 2,
    ports: Mapping[str, int] | None = None,
    prepare: Callable[[Fleet], None] = lambda fleet: None,
) -> Iterator[Scene]:
    """A fleet of its own, serving and signed in. `prepare` is called before it serves."""
    with new_folder() as folder:
        fleet = Fleet(folder, host, [host.new_person() for _ in range(people)], ports=ports)
        prepare(fleet)
        fleet.serve()
        try:
            fleet.sign_everybody_in()
            yield Scene(host, fleet, Programs(fleet.ports), Ledger(host.dovecot))
        finally:
            fleet.kill_if_left()


def total(findings: list[Finding]) -> Finding:
    """Several of one fault as one line."""
    first = findings[0]
    return replace(
        first,
        injected=sum(one.injected for one in findings),
        logins=sum(one.logins for one in findings),
        acknowledged=sum(one.acknowledged for one in findings),
        unacknowledged=sum(one.unacknowledged for one in findings),
        wrong=tuple(text for one in findings for text in one.wrong),
    )
