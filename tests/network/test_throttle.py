"""The throttle: so many distinct wrong pairs and no more, told alike for every login, and who is at work goes on."""

from __future__ import annotations

import base64
import gc
import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from types import FunctionType, ModuleType
from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from proxy.accounts.passdb import BUSY, MAX_HASHES_WAITING, WRONG, PassDb
from proxy.config.settings import Account, LocalPassword
from proxy.login import Credentials, Fault, LoginRefused, Refusal
from proxy.network import throttle as throttle_module
from proxy.network.throttle import (
    MAX_AT_ONCE_PER_ADDRESS,
    MAX_WRONG_PER_ADDRESS,
    MAX_WRONG_PER_LOGIN,
    TRUSTED_S,
    WRONG_WINDOW_S,
    Throttle,
)
from tests.accounts.fakes import account
from tests.network.turning import watch

ALICE = account("alice@contoso.com")
RIGHT = b"wonderland"
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.1"


def address(number: int) -> str:
    return str(ip_address("10.0.0.0") + number)


class FakePassDb:
    """Knows Alice under two logins. What it hashed is in `hashed`; `holds` keeps hashes under way until `release`."""

    def __init__(self, right: bytes = RIGHT) -> None:
        self.account = replace(ALICE, logins=("alice@contoso.com", "Alice"))
        self.right = right
        self.remembers = False
        self.refuses: LoginRefused | None = None
        self.holds = False
        self.hashed: list[bytes] = []
        """Passwords."""
        self._held: list[Deferred[None]] = []

    async def verify(
        self, credentials: Credentials, *, protocol: str, peer: object, before_hashing: Callable[[], None]
    ) -> Account:
        if not self.remembers:
            before_hashing()
            self.hashed.append(credentials.password)
            if self.holds:
                self._held.append(Deferred())
                await self._held[-1]
        if self.refuses is not None:
            raise self.refuses
        known = credentials.login.decode().casefold() in ("alice@contoso.com", "alice")
        if not known or credentials.password != self.right:
            raise LoginRefused(Refusal.BAD_CREDENTIALS, WRONG, fault=Fault.CLIENT)
        return self.account

    def release(self) -> None:
        """One hash, the oldest, is done."""
        self._held.pop(0).callback(None)


class Bench:
    """A throttle with a clock, before a passdb."""

    def __init__(self, passdb: FakePassDb | PassDb | None = None) -> None:
        self.clock_s = 1_000.0
        self.throttle = Throttle(lambda: self.clock_s)
        self.fake = FakePassDb()
        self.passdb = passdb or self.fake

    def start(
        self,
        password: str | bytes,
        login: str | bytes = "alice",
        peer: str = HERE,
        *,
        protocol: str = "imap",
        authorization_id: bytes = b"",
        verbatim: tuple[bytes, bytes] | None = None,
    ) -> list[object]:
        """A login under way; the list gets its outcome."""
        sent = [each.encode() if isinstance(each, str) else each for each in (login, password)]
        credentials = Credentials(sent[0], sent[1], authorization_id, verbatim)
        work = self.throttle.verify(cast("PassDb", self.passdb), credentials, protocol=protocol, peer=ip_address(peer))
        return cast("list[object]", watch(Deferred.fromCoroutine(work)))

    def log_in(
        self,
        password: str | bytes,
        login: str | bytes = "alice",
        peer: str = HERE,
        *,
        protocol: str = "imap",
        authorization_id: bytes = b"",
        verbatim: tuple[bytes, bytes] | None = None,
    ) -> Account | LoginRefused:
        return ended(
            self.start(password, login, peer, protocol=protocol, authorization_id=authorization_id, verbatim=verbatim)
        )

    def hashes(self, password: str | bytes, login: str = "alice", peer: str = HERE) -> int:
        """How many this login costs."""
        before = len(self.fake.hashed)
        self.log_in(password, login, peer)
        return len(self.fake.hashed) - before

    def fill_address(self, peer: str = HERE, count: int = MAX_WRONG_PER_ADDRESS) -> None:
        """So many wrong pairs from there, each against another login."""
        for n in range(count):
            bad(self.log_in("wrong", f"somebody-{n}", peer))

    def fill_login(self, login: str = "alice", count: int = MAX_WRONG_PER_LOGIN) -> None:
        """So many wrong pairs against it, each from another address."""
        for n in range(count):
            bad(self.log_in(f"wrong-{n}", login, address(n)))


def ended(outcome: list[object]) -> Account | LoginRefused:
    assert outcome, "the login has not ended"
    result = getattr(outcome[0], "value", outcome[0])
    if isinstance(result, Account | LoginRefused):
        return result
    assert isinstance(result, BaseException)
    raise result


def refused(outcome: Account | LoginRefused, refusal: Refusal) -> LoginRefused:
    assert isinstance(outcome, LoginRefused)
    assert outcome.refusal is refusal
    return outcome


def bad(outcome: Account | LoginRefused) -> LoginRefused:
    return refused(outcome, Refusal.BAD_CREDENTIALS)


def too_many(outcome: Account | LoginRefused) -> LoginRefused:
    return refused(outcome, Refusal.TOO_MANY_ATTEMPTS)


def said(told: LoginRefused) -> tuple[Refusal, str, Fault]:
    """All that can reach a mail program."""
    return told.refusal, told.text, told.fault


@pytest.fixture
def bench() -> Bench:
    return Bench()


# What the passdb says is what is said


def test_right_is_right_and_wrong_is_wrong(bench: Bench) -> None:
    assert bench.log_in(RIGHT) is bench.fake.account
    assert said(bad(bench.log_in("wrong"))) == (Refusal.BAD_CREDENTIALS, WRONG, Fault.CLIENT)


@pytest.mark.parametrize("refusal", [Refusal.BUSY, Refusal.MISCONFIGURED])
def test_only_wrong_passwords_count(bench: Bench, refusal: Refusal) -> None:
    bench.fake.refuses = LoginRefused(refusal, "Not now.", fault=Fault.MAILFERRY)
    for n in range(2 * MAX_WRONG_PER_ADDRESS):
        assert bench.log_in(f"any-{n}") is bench.fake.refuses
    bench.fake.refuses = None
    assert bench.log_in(RIGHT) is bench.fake.account


def test_an_error_of_the_passdb_is_nobodys_wrong_password(bench: Bench) -> None:
    bench.fake.refuses = cast("LoginRefused", MemoryError())
    for n in range(2 * MAX_WRONG_PER_ADDRESS):
        with pytest.raises(MemoryError):
            bench.log_in(f"any-{n}")
    bench.fake.refuses = None
    assert bench.log_in(RIGHT) is bench.fake.account


# From one address


def test_at_the_limit_of_an_address_nothing_from_there_is_looked_at(bench: Bench) -> None:
    bench.fill_address(count=MAX_WRONG_PER_ADDRESS - 1)
    assert bench.log_in(RIGHT) is bench.fake.account
    bad(bench.log_in("the last one"))
    for login, password in (("alice", RIGHT), ("bob", b"new"), ("nobody", b"")):
        told = too_many(bench.log_in(password, login))
        assert "from this address (192.0.2.1)" in told.text
        assert told.fault is Fault.CLIENT
        assert bench.hashes(password, login) == 0


def test_other_addresses_are_not_concerned(bench: Bench) -> None:
    bench.fill_address()
    assert bench.log_in(RIGHT, peer=ELSEWHERE) is bench.fake.account


def test_who_is_at_work_goes_on(bench: Bench) -> None:
    """A login that the passdb remembers needs no hash."""
    bench.fill_address()
    bench.fake.remembers = True
    assert bench.log_in(RIGHT) is bench.fake.account


def test_success_clears_nothing(bench: Bench) -> None:
    """An attacker may own one account."""
    for n in range(MAX_WRONG_PER_ADDRESS):
        bad(bench.log_in("wrong", f"somebody-{n}"))
        if n < MAX_WRONG_PER_ADDRESS - 1:
            assert bench.log_in(RIGHT) is bench.fake.account
    too_many(bench.log_in(RIGHT))


def test_the_limit_holds_until_the_window_has_moved_on(bench: Bench) -> None:
    bench.fill_address(count=1)
    bench.clock_s += 60
    for n in range(MAX_WRONG_PER_ADDRESS - 1):
        bad(bench.log_in("wrong", f"another-{n}"))
    assert "for 4 minutes." in too_many(bench.log_in(RIGHT)).text
    bench.clock_s += WRONG_WINDOW_S - 61
    assert "for 1 minute." in too_many(bench.log_in(RIGHT)).text
    bench.clock_s += 1
    bad(bench.log_in("wrong", "one place is free"))
    too_many(bench.log_in(RIGHT))
    bench.clock_s += WRONG_WINDOW_S
    assert bench.log_in(RIGHT) is bench.fake.account


def test_what_is_refused_unseen_does_not_count(bench: Bench) -> None:
    bench.fill_address()
    bench.clock_s += WRONG_WINDOW_S - 1
    for n in range(MAX_WRONG_PER_ADDRESS):
        too_many(bench.log_in(f"any-{n}"))
    bench.clock_s += 1
    assert bench.log_in(RIGHT) is bench.fake.account


def test_of_ipv6_a_whole_64_is_one_address(bench: Bench) -> None:
    for n in range(MAX_WRONG_PER_ADDRESS):
        bad(bench.log_in("wrong", f"somebody-{n}", f"2001:db8:0:1::{n:x}"))
    assert "(2001:db8:0:1::/64)" in too_many(bench.log_in(RIGHT, peer="2001:db8:0:1:ffff:ffff:ffff:ffff")).text
    assert bench.log_in(RIGHT, peer="2001:db8:0:2::1") is bench.fake.account


# What counts as one pair


def test_a_typo_counts_once_however_it_is_sent(bench: Bench) -> None:
    """Thunderbird sends UTF-8 as PLAIN and Latin-1 as LOGIN; a person has IMAP, POP3 and SMTP set up."""
    for charset in ("utf-8", "latin-1"):
        for protocol in ("imap", "pop3", "smtp"):
            for login in ("alice", "ALICE"):
                bad(bench.log_in("grüsse".encode(charset), login, protocol=protocol))
    bench.fill_address(count=MAX_WRONG_PER_ADDRESS - 2)
    assert bench.log_in(RIGHT) is bench.fake.account
    bench.fill_address(ELSEWHERE, 1)
    bad(bench.log_in("another"))
    too_many(bench.log_in(RIGHT))


def test_each_reading_of_the_octets_counts_against_its_login(bench: Bench) -> None:
    """A lone backslash, moved about, must not make a new login of an old one each time."""
    for n in range(MAX_WRONG_PER_LOGIN):
        sent = (b"a\\lice" + b"\\" * n, b"wrong-%d" % n)
        bad(bench.log_in(f"wrong-{n}", "alice", address(n), verbatim=sent))
    too_many(bench.log_in(RIGHT))
    too_many(bench.log_in(RIGHT, b"CONTOSOalice", verbatim=(b"alice", RIGHT)))


def test_two_readings_of_one_login_are_two_pairs(bench: Bench) -> None:
    for n in range(MAX_WRONG_PER_ADDRESS // 2):
        bad(bench.log_in(f"pass-{n}", f"somebody-{n}", verbatim=(b"somebody-%d" % n, b"pa\\ss-%d" % n)))
    too_many(bench.log_in(RIGHT))


# Against one login


def test_at_the_limit_of_a_login_it_is_looked_at_nowhere(bench: Bench) -> None:
    bench.fill_login(count=MAX_WRONG_PER_LOGIN - 1)
    assert bench.log_in(RIGHT, peer=ELSEWHERE) is bench.fake.account
    bad(bench.log_in("the last one", peer=address(0)))
    told = too_many(bench.log_in(RIGHT))
    assert "for this login" in told.text
    assert "for 5 minutes." in told.text
    assert bench.hashes(RIGHT) == 0
    bad(bench.log_in(RIGHT, "bob"))
    bench.clock_s += WRONG_WINDOW_S
    assert bench.log_in(RIGHT) is bench.fake.account


def test_a_login_is_one_in_every_case(bench: Bench) -> None:
    bench.fill_login("Alice")
    too_many(bench.log_in(RIGHT, "ALICE"))


def test_a_login_is_one_in_every_charset(bench: Bench) -> None:
    bench.fill_login("josé")
    too_many(bench.log_in(RIGHT, "JOSE\u0301"))
    too_many(bench.log_in(RIGHT, "José".encode("latin-1")))
    bad(bench.log_in(RIGHT, "jose"))


def test_the_same_wrong_pair_from_many_places_counts_once_for_its_login(bench: Bench) -> None:
    """The old password, in every device of its owner."""
    for n in range(2 * MAX_WRONG_PER_LOGIN):
        bad(bench.log_in("last year's", peer=address(n)))
    assert bench.log_in(RIGHT) is bench.fake.account


@pytest.mark.parametrize("login", ["alice", "ALICE", "alice@contoso.com"])
def test_a_stranger_does_not_lock_the_owner_out(bench: Bench, login: str) -> None:
    assert bench.log_in(RIGHT) is bench.fake.account
    bench.fill_login("alice")
    bench.fill_login("alice@contoso.com")
    assert bench.log_in(RIGHT, login) is bench.fake.account
    too_many(bench.log_in(RIGHT, login, ELSEWHERE))


@pytest.mark.parametrize("local", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_stranger_elsewhere_does_not_lock_the_programs_of_this_machine_out(bench: Bench, local: str) -> None:
    bench.fill_login()
    assert bench.log_in(RIGHT, peer=local) is bench.fake.account
    bench.fill_address(local)
    too_many(bench.log_in(RIGHT, peer=local))


def test_an_owner_is_known_where_he_was_within_a_day(bench: Bench) -> None:
    bench.log_in(RIGHT)
    bench.clock_s += TRUSTED_S - 1
    bench.fill_login()
    assert bench.log_in(RIGHT) is bench.fake.account, "and is known for another day from now"
    bench.clock_s += TRUSTED_S
    bench.fill_login()
    too_many(bench.log_in(RIGHT))


def test_an_owner_is_known_for_his_own_login_only(bench: Bench) -> None:
    bench.log_in(RIGHT)
    bench.fill_login("bob")
    too_many(bench.log_in(RIGHT, "bob"))


def test_an_owner_in_another_house_of_the_same_64_is_known(bench: Bench) -> None:
    bench.log_in(RIGHT, peer="2001:db8::1")
    bench.fill_login()
    assert bench.log_in(RIGHT, peer="2001:db8::2") is bench.fake.account


def test_a_known_owner_still_has_the_limit_of_his_address(bench: Bench) -> None:
    bench.log_in(RIGHT)
    for n in range(MAX_WRONG_PER_ADDRESS):
        bad(bench.log_in(f"wrong-{n}"))
    assert "from this address" in too_many(bench.log_in(RIGHT)).text


def test_a_wrong_password_makes_no_address_known(bench: Bench) -> None:
    bad(bench.log_in("wrong"))
    bench.fill_login(count=MAX_WRONG_PER_LOGIN - 1)
    too_many(bench.log_in(RIGHT))


# Known and unknown logins


def test_an_unknown_login_is_told_what_a_known_one_is() -> None:
    def story(login: str) -> list[tuple[Refusal, str, Fault]]:
        """All that a stranger hears, from one address and then from many."""
        bench, heard = Bench(), []
        for n in range(MAX_WRONG_PER_ADDRESS + 2):
            heard.append(bench.log_in(f"wrong-{n // 2}", login))
            bench.clock_s += 1
        heard += [bench.log_in(f"guess-{n}", login, address(n)) for n in range(MAX_WRONG_PER_LOGIN)]
        heard += [bench.log_in(f"guess-{n}", f"other-{n}", HERE) for n in range(MAX_WRONG_PER_ADDRESS)]
        heard.append(bench.log_in("wrong", login))
        return [said(each) for each in heard if isinstance(each, LoginRefused)]

    told = story("alice")
    assert {refusal for refusal, _, _ in told} == {Refusal.BAD_CREDENTIALS, Refusal.TOO_MANY_ATTEMPTS}
    assert len({text for _, text, _ in told}) >= 3, "wrong, the login's limit, the address's limit"
    assert story("nobody") == told


# What was wrong is wrong again


def test_a_wrong_pair_costs_one_hash_and_is_told_the_same(bench: Bench) -> None:
    first = bad(bench.log_in("wrong"))
    for _ in range(10 * MAX_WRONG_PER_ADDRESS):
        again = bad(bench.log_in("wrong"))
    assert said(again) == said(first)
    assert bench.fake.hashed == [b"wrong"]
    assert bench.log_in(RIGHT) is bench.fake.account


def test_it_is_wrong_within_the_window_and_looked_at_behind_it(bench: Bench) -> None:
    bad(bench.log_in("wrong"))
    bench.clock_s += WRONG_WINDOW_S - 1
    assert bench.hashes("wrong") == 0
    bench.clock_s += WRONG_WINDOW_S
    assert bench.hashes("wrong") == 1


def test_a_program_in_a_loop_hears_the_truth_though_others_reach_the_limit(bench: Bench) -> None:
    bad(bench.log_in("wrong"))
    bench.fill_address(count=MAX_WRONG_PER_ADDRESS - 1)
    too_many(bench.log_in("new"))
    bad(bench.log_in("wrong"))


def test_whatever_decides_on_right_or_wrong_makes_it_another_attempt(bench: Bench) -> None:
    """A password may be good for one protocol, network or mailbox, and not for another."""
    hashed = bench.fake.hashed
    bad(bench.log_in("wrong"))
    bad(bench.log_in("wrong", protocol="smtp"))
    bad(bench.log_in("wrong", peer="192.0.2.2"))
    bad(bench.log_in("wrong", authorization_id=b"alice"))
    bad(bench.log_in("wrong", verbatim=(b"alice", b"wr\\ong")))
    bad(bench.log_in("wrong", verbatim=(b"alicewr", b"\\ong")))
    bad(bench.log_in("wrong", verbatim=(b"", b"")))
    bad(bench.log_in("rong", "alicew"))
    bad(bench.log_in("wrong", "ALICE"))
    assert len(hashed) == 9
    bad(bench.log_in("wrong", peer="2001:db8::1"))
    bad(bench.log_in("wrong", peer="2001:db8::2"))
    assert len(hashed) == 11, "an account's networks may be smaller than a /64"


def test_after_a_reload_what_was_wrong_is_looked_at_and_the_counts_stand(bench: Bench) -> None:
    for n in range(MAX_WRONG_PER_LOGIN - 1):
        bad(bench.log_in(f"wrong-{n}"))
    bench.passdb = FakePassDb(right=b"wrong-0")
    bench.throttle.forget()
    assert bench.log_in("wrong-0") is bench.passdb.account
    bad(bench.log_in("wrong-1", peer=ELSEWHERE))
    bad(bench.log_in("new", peer=ELSEWHERE))
    too_many(bench.log_in("wrong-0", peer=ELSEWHERE))


def test_when_told_to_it_forgets_what_was_wrong(bench: Bench) -> None:
    bad(bench.log_in("new"))
    bench.fake.right = b"new"
    bad(bench.log_in("new"))
    bench.throttle.forget()
    assert bench.log_in("new") is bench.fake.account


def test_a_session_of_the_old_configuration_leaves_nothing_wrong_in_the_new_one(bench: Bench) -> None:
    new = FakePassDb(right=b"new")
    bench.throttle.forget()
    bad(bench.log_in("new"))  # still asks the old one
    bench.passdb = new
    assert bench.log_in("new") is new.account


def test_a_hash_of_the_old_configuration_that_ends_late_leaves_nothing_either(bench: Bench) -> None:
    bench.fake.holds = True
    late = bench.start("new")
    bench.passdb = FakePassDb(right=b"new")
    bench.throttle.forget()
    bench.fake.release()
    bad(ended(late))
    assert bench.log_in("new") is bench.passdb.account


def texts_kept_by(thing: object) -> set[str]:
    """All texts and octets in an object and in what it refers to; not in code, which is no memory of its."""
    seen, left, texts = {id(thing): thing}, [thing], set()
    while left:
        each = left.pop()
        if isinstance(each, str | bytes):
            texts.add(each if isinstance(each, str) else each.decode("latin-1"))
        for further in gc.get_referents(each):
            if id(further) not in seen and not isinstance(further, type | FunctionType | ModuleType):
                seen[id(further)] = further
                left.append(further)
    return texts


def test_no_password_and_no_login_is_kept(bench: Bench) -> None:
    bad(bench.log_in("very wrong", "somebody"))
    assert bench.log_in(RIGHT) is bench.fake.account
    kept = texts_kept_by(bench.throttle)
    assert len([text for text in kept if len(text) == 32]) >= 4, "digests are found"
    assert not any(secret in text for text in kept for secret in ("very wrong", "somebody", RIGHT.decode(), "alice"))


# Bounds


@pytest.fixture
def small_bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One that tracks few."""
    monkeypatch.setattr(throttle_module, "MAX_TRACKED", TRACKED)
    return Bench()


TRACKED = 40


def test_of_too_many_logins_the_one_counted_longest_ago_is_forgotten(small_bench: Bench) -> None:
    small_bench.fill_login("first", MAX_WRONG_PER_LOGIN - 1)
    small_bench.fill_login("second")
    bad(small_bench.log_in("again", "first", ELSEWHERE))
    for n in range(TRACKED - 1):
        bad(small_bench.log_in("wrong", f"somebody-{n}", address(1_000 + n)))
    too_many(small_bench.log_in("new", "first"))
    bad(small_bench.log_in("new", "second"))


def test_of_too_many_addresses_the_one_counted_longest_ago_is_forgotten(small_bench: Bench) -> None:
    small_bench.fill_address("192.0.2.1")
    small_bench.fill_address("192.0.2.2")
    for n in range(TRACKED - 1):
        bad(small_bench.log_in("wrong", f"somebody-{n}", address(n)))
    too_many(small_bench.log_in("new", peer="192.0.2.2"))
    bad(small_bench.log_in("new", peer="192.0.2.1"))


def test_all_that_is_kept_is_bounded(small_bench: Bench) -> None:
    for n in range(3 * TRACKED):
        bad(small_bench.log_in("wrong", f"somebody-{n}", address(n)))
        small_bench.log_in(RIGHT, peer=address(n))
    for n in range(3 * MAX_WRONG_PER_ADDRESS):
        small_bench.clock_s += WRONG_WINDOW_S / MAX_WRONG_PER_ADDRESS
        bad(small_bench.log_in("wrong", f"another-{n}"))
    throttle = small_bench.throttle
    recents = [throttle._wrong, throttle._trusted]
    tallies = [throttle._by_source._pairs, throttle._by_login._pairs]
    assert [len(recent._until) for recent in recents] == [TRACKED, TRACKED]
    assert [len(tally) for tally in tallies] == [TRACKED, TRACKED]
    assert max(len(recent._until) for tally in tallies for recent in tally.values()) == MAX_WRONG_PER_ADDRESS


# Many at once


def test_few_logins_of_one_address_are_with_the_passdb_at_once(bench: Bench) -> None:
    bench.fake.holds = True
    logins = [bench.start(RIGHT) for _ in range(MAX_AT_ONCE_PER_ADDRESS + 3)]
    assert len(bench.fake.hashed) == MAX_AT_ONCE_PER_ADDRESS
    elsewhere = bench.start(RIGHT, peer=ELSEWHERE)
    assert len(bench.fake.hashed) == MAX_AT_ONCE_PER_ADDRESS + 1, "others do not wait for it"
    bench.fake.release()
    assert [bool(login) for login in logins] == [True] + [False] * (len(logins) - 1)
    assert len(bench.fake.hashed) == MAX_AT_ONCE_PER_ADDRESS + 2, "the next one's turn has come"
    while bench.fake._held:
        bench.fake.release()
    assert [ended(login) for login in [*logins, elsewhere]] == [bench.fake.account] * (len(logins) + 1)


def test_hundreds_at_once_do_not_outrun_the_count(bench: Bench) -> None:
    bench.fake.holds = True
    logins = [bench.start("wrong", f"somebody-{n}") for n in range(MAX_HASHES_WAITING)]
    while bench.fake._held:
        bench.fake.release()
    told = [cast("LoginRefused", ended(login)).refusal for login in logins]
    hashed = len(bench.fake.hashed)
    assert MAX_WRONG_PER_ADDRESS <= hashed < MAX_WRONG_PER_ADDRESS + MAX_AT_ONCE_PER_ADDRESS
    assert told == [Refusal.BAD_CREDENTIALS] * hashed + [Refusal.TOO_MANY_ATTEMPTS] * (len(logins) - hashed)


def test_a_whole_office_in_the_morning_gets_in(bench: Bench) -> None:
    bench.fake.holds = True
    logins = [bench.start(RIGHT) for _ in range(MAX_HASHES_WAITING)]
    while bench.fake._held:
        bench.fake.release()
    assert [ended(login) for login in logins] == [bench.fake.account] * len(logins)


def test_a_long_queue_that_needs_no_hash_any_more_is_let_in_without_a_deep_stack(bench: Bench) -> None:
    bench.fake.holds = True
    depth: list[int] = []
    logins = [bench.start(RIGHT) for _ in range(MAX_HASHES_WAITING)]
    waiting = bench.throttle._turns[ip_address(HERE)]._waiting  # type: ignore[index]
    for turn in waiting:
        turn.addCallback(lambda _: depth.append(len(inspect.stack(0))))
    bench.fake.remembers = True
    bench.fake.release()
    assert sum(map(bool, logins)) == 1 + len(depth)
    assert len(depth) == len(logins) - MAX_AT_ONCE_PER_ADDRESS
    assert max(depth) - min(depth) < 20


def test_a_queue_without_end_is_busy_and_costs_nobody_a_count(bench: Bench) -> None:
    bench.fake.holds = True
    for n in range(MAX_AT_ONCE_PER_ADDRESS + MAX_HASHES_WAITING):
        assert not bench.start(f"any-{n}")
    assert refused(bench.log_in("one more"), Refusal.BUSY).text == BUSY
    assert not bench.start("one more", peer=ELSEWHERE)
    bench.fake.release()
    assert not bench.start("there is room again")


def test_who_leaves_the_queue_takes_no_turn(bench: Bench) -> None:
    def leaving() -> Deferred[Account]:
        credentials = Credentials(b"alice", b"left")
        work = bench.throttle.verify(cast("PassDb", bench.passdb), credentials, protocol="imap", peer=ip_address(HERE))
        return Deferred.fromCoroutine(work)

    bench.fake.holds = True
    first = [bench.start(RIGHT) for _ in range(MAX_AT_ONCE_PER_ADDRESS)]
    gone = [leaving() for _ in range(MAX_AT_ONCE_PER_ADDRESS)]
    last = bench.start(RIGHT)
    for each in gone:
        left = watch(each)
        each.cancel()
        with pytest.raises(CancelledError):
            ended(cast("list[object]", left))
    for _ in range(MAX_AT_ONCE_PER_ADDRESS + 1):
        bench.fake.release()
    assert [ended(login) for login in [*first, last]] == [bench.fake.account] * (len(first) + 1)
    assert b"left" not in bench.fake.hashed


def test_nothing_is_kept_of_those_who_came_and_left(bench: Bench) -> None:
    for n in range(100):
        bad(bench.log_in("wrong", f"somebody-{n}", address(n)))
    assert not bench.throttle._turns


# With the real passdb


class RealBench(Bench):
    """Before a real passdb that knows Alice and Bob; `costs` has the scrypt cost of each hash that was run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.costs: list[int] = []
        self.runs = 0
        scrypt = hashlib.scrypt

        def counting(password: bytes, *, salt: bytes, n: int, r: int, p: int, maxmem: int, dklen: int) -> bytes:
            self.costs.append(n * r * p)
            return scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=maxmem, dklen=dklen)

        def run(job: Callable[[], bool]) -> Deferred[bool]:
            self.runs += 1
            return succeed(job())

        monkeypatch.setattr("proxy.accounts.passwords.scrypt", counting)
        self.alice = replace(ALICE, logins=("alice",), passwords=(local(RIGHT), local(b"phone", ln=2)))
        self.bob = replace(ALICE, logins=("bob",), passwords=(local(b"builder"),))
        super().__init__(PassDb([self.alice, self.bob], run=run, now=lambda: self.clock_s))


def local(password: bytes, ln: int = 1) -> LocalPassword:
    digest = hashlib.scrypt(password, salt=b"salt", n=1 << ln, r=1, p=1, dklen=16)
    salt_text, digest_text = (base64.b64encode(part).decode().rstrip("=") for part in (b"salt", digest))
    return LocalPassword(f"$scrypt$ln={ln},r=1,p=1${salt_text}${digest_text}", "main", ("imap", "pop3", "smtp"), ())


def test_case_40_an_unknown_user_and_a_wrong_password_are_the_same_work_and_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CLIENTS case 40, but for the clock on the wall, which `tests/bench` looks at."""

    def story(login: str) -> list[tuple[tuple[Refusal, str, Fault], int, list[int]]]:
        """Each refusal, with how many hashes were run by then, and their costs."""
        bench, heard = RealBench(monkeypatch), []
        for n in range(500):
            told = bench.log_in(f"wrong-{n}", login, address(n // 20))
            assert isinstance(told, LoginRefused)
            heard.append((said(told), bench.runs, sorted(bench.costs)))
            bench.clock_s += 1
        return heard

    known, less_known, unknown = story("alice"), story("bob"), story("nobody")
    assert known[0][1:] == (2, [2, 4])
    assert known[-1][1] > 2 * MAX_WRONG_PER_LOGIN, "the window has moved on"
    assert {told[0] for told, _, _ in known} == {Refusal.BAD_CREDENTIALS, Refusal.TOO_MANY_ATTEMPTS}
    assert known == less_known == unknown
