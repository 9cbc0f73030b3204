"""The passdb: the right password opens, whatever the program made of it; a wrong one costs the same for everybody."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from proxy.accounts import passwords
from proxy.accounts.passdb import (
    MAX_HASHES_AT_ONCE,
    MAX_HASHES_WAITING,
    MAX_REMEMBERED,
    REMEMBERED_S,
    PassDb,
)
from proxy.config.settings import Account, LocalPassword, ProtocolName
from proxy.login import Credentials, Fault, LoginRefused, Refusal
from tests.accounts.fakes import APP

ALL: tuple[ProtocolName, ...] = ("imap", "pop3", "smtp")


def cheap_hash(password: str, ln: int = 1, salt: bytes = b"salt") -> str:
    digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << ln, r=1, p=1, dklen=16)
    salt_text, digest_text = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    return f"$scrypt$ln={ln},r=1,p=1${salt_text}${digest_text}"


def local(
    password: str,
    *,
    ln: int = 1,
    protocols: tuple[ProtocolName, ...] = ALL,
    networks: Sequence[str] = (),
) -> LocalPassword:
    return LocalPassword(cheap_hash(password, ln), "main", protocols, tuple(map(ip_network, networks)))


def account(
    *logins: str,
    passwords: Sequence[LocalPassword] = (),
    mailbox: str = "",
    protocols: tuple[ProtocolName, ...] = ALL,
) -> Account:
    return Account(
        logins=logins,
        app=APP,
        passwords=tuple(passwords),
        mailbox=mailbox or logins[0],
        sign_in=logins[0],
        protocols=protocols,
        imap_connections=16,
        smtp_connections=3,
        messages_per_minute=30,
    )


class Pool:
    """Stands for the thread pool: runs a job at once, or holds it until it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.holds = False
        self.held: list[tuple[Callable[[], bool], Deferred[bool]]] = []

    def run(self, job: Callable[[], bool]) -> Deferred[bool]:
        self.count += 1
        if not self.holds:
            return succeed(job())
        done: Deferred[bool] = Deferred()
        self.held.append((job, done))
        return done

    def release(self) -> None:
        """Do what is held, and what comes meanwhile."""
        while self.held:
            job, done = self.held.pop(0)
            done.callback(job())
        self.holds = False


class Bench:
    def __init__(self, *accounts: Account) -> None:
        self.pool = Pool()
        self.clock_s = 1_000.0
        self.passdb = PassDb(accounts, run=self.pool.run, now=lambda: self.clock_s)

    def start(
        self,
        login: str | bytes,
        password: str | bytes,
        *,
        protocol: str = "imap",
        peer: str | None = "127.0.0.1",
        authorization_id: bytes = b"",
        verbatim: tuple[bytes, bytes] | None = None,
        before_hashing: Callable[[], None] | None = None,
    ) -> Deferred[Account]:
        credentials = Credentials(octets(login), octets(password), authorization_id, verbatim)
        address: IPv4Address | IPv6Address | None = None if peer is None else ip_address(peer)
        return Deferred.fromCoroutine(
            self.passdb.verify(credentials, protocol=protocol, peer=address, before_hashing=before_hashing)
        )

    def login(
        self,
        login: str | bytes,
        password: str | bytes,
        *,
        protocol: str = "imap",
        peer: str | None = "127.0.0.1",
        authorization_id: bytes = b"",
        verbatim: tuple[bytes, bytes] | None = None,
    ) -> Account | LoginRefused:
        started = self.start(
            login, password, protocol=protocol, peer=peer, authorization_id=authorization_id, verbatim=verbatim
        )
        return outcome(started)

    def runs(self, login: str | bytes, password: str | bytes, *, verbatim: tuple[bytes, bytes] | None = None) -> int:
        """How many hashes this login costs."""
        before = self.pool.count
        self.login(login, password, verbatim=verbatim)
        return self.pool.count - before


def octets(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def outcome(started: Deferred[Account]) -> Account | LoginRefused:
    outcomes: list[Account | Failure] = []
    started.addBoth(outcomes.append)
    assert outcomes, "the login has not ended"
    if isinstance(outcomes[0], Account):
        return outcomes[0]
    if not isinstance(outcomes[0].value, LoginRefused):
        outcomes[0].raiseException()
    return outcomes[0].value


def refused(outcome: Account | LoginRefused, refusal: Refusal = Refusal.BAD_CREDENTIALS) -> LoginRefused:
    assert isinstance(outcome, LoginRefused)
    assert outcome.refusal is refusal
    return outcome


ALICE = account("alice@contoso.com", "alice", passwords=[local("wonderland")], mailbox="sales@contoso.com")
BOB = account("bob@contoso.com", passwords=[local("builder"), local("scanner", protocols=("smtp",))])


# Who logs in


@pytest.mark.parametrize("login", ["alice@contoso.com", "ALICE@Contoso.COM", "alice", "Alice"])
def test_the_right_password_opens_under_every_login_in_any_case(login: str) -> None:
    assert Bench(ALICE, BOB).login(login, "wonderland") is ALICE


def test_logins_are_compared_as_unicode() -> None:
    strasse = account("STRASSE", passwords=[local("x")])
    jose = account(unicodedata.normalize("NFD", "josé"), passwords=[local("x")])
    bench = Bench(strasse, jose)
    assert bench.login("straße", "x") is strasse
    assert bench.login(unicodedata.normalize("NFC", "JOSÉ"), "x") is jose
    assert bench.login("josé".encode("cp1252"), "x") is jose


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("alice", "Wonderland"),
        ("alice", "wonderland "),
        ("alice", "builder"),
        ("nobody", "wonderland"),
        ("alice@contoso.com.", "wonderland"),
        ("alice", ""),
        ("", "wonderland"),
        ("", ""),
    ],
)
def test_wrong_is_wrong(login: str, password: str) -> None:
    told = refused(Bench(ALICE, BOB).login(login, password))
    assert told.fault is Fault.CLIENT


def test_each_of_several_passwords_opens() -> None:
    devices = account("a", passwords=[local("phone"), local("laptop", ln=2), local("scanner")])
    bench = Bench(devices)
    assert [bench.login("a", password) for password in ("phone", "laptop", "scanner")] == [devices] * 3


@pytest.mark.parametrize("charset", ["utf-8", "cp1252", "latin-1"])
def test_a_password_opens_in_each_charset_that_programs_send(charset: str) -> None:
    umlaut = account("a", passwords=[local("grüße")])
    assert Bench(umlaut).login("a", "grüße".encode(charset)) is umlaut


def test_octets_of_no_charset_are_a_wrong_password() -> None:
    refused(Bench(ALICE).login(b"alice", b"\x81\xff"))


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.none() | st.just((b"\xff", b"\x00")))
@settings(max_examples=50)
def test_any_octets_end_in_a_refusal(
    login: bytes, password: bytes, authorization_id: bytes, verbatim: tuple[bytes, bytes] | None
) -> None:
    refused(Bench(BOB).login(login, password, authorization_id=authorization_id, verbatim=verbatim))


def test_a_lone_backslash_is_tried_as_sent_too() -> None:
    domain = account("CONTOSO\\alice", passwords=[local("pa\\ss")])
    bench = Bench(domain)
    assert bench.login("CONTOSOalice", "pass", verbatim=(b"contoso\\alice", b"pa\\ss")) is domain
    refused(bench.login("CONTOSOalice", "pass"))


@pytest.mark.parametrize("character", ["\x00", "\x01", "\r", "\n", "\x1f", "\x7f"])
def test_control_characters_are_refused_though_they_be_the_password(character: str) -> None:
    odd = account("a", f"b{character}", passwords=[local(f"x{character}"), local("y")])
    bench = Bench(odd)
    refused(bench.login("a", f"x{character}"))
    refused(bench.login(f"b{character}", "y"))
    refused(bench.login("a", "y", authorization_id=f"a{character}".encode()))
    assert bench.login("a", "y") is odd


# What a password is good for


def test_a_devices_password_is_good_for_its_protocols_only() -> None:
    bench = Bench(BOB)
    assert bench.login("bob@contoso.com", "scanner", protocol="smtp") is BOB
    refused(bench.login("bob@contoso.com", "scanner", protocol="imap"))
    assert bench.login("bob@contoso.com", "builder", protocol="imap") is BOB


@pytest.mark.parametrize(
    ("peer", "opens"),
    [("192.0.2.7", True), ("198.51.100.7", False), ("2001:db8::7", True), ("::1", False), (None, False)],
)
def test_a_password_is_good_from_its_networks_only(peer: str | None, opens: bool) -> None:
    scanner = account("a", passwords=[local("x", networks=["192.0.2.0/24", "2001:db8::/32"])])
    assert (Bench(scanner).login("a", "x", peer=peer) is scanner) is opens


def test_a_password_without_networks_is_good_without_a_peer() -> None:
    assert Bench(ALICE).login("alice", "wonderland", peer=None) is ALICE


def test_the_same_password_given_twice_is_good_for_both_uses() -> None:
    both = account("a", passwords=[local("x", protocols=("imap",)), local("x", protocols=("smtp",))])
    assert Bench(both).login("a", "x", protocol="imap") is both
    assert Bench(both).login("a", "x", protocol="smtp") is both
    refused(Bench(both).login("a", "x", protocol="pop3"))


def test_a_protocol_that_is_switched_off_is_said_to_whoever_has_the_password_only() -> None:
    imap_only = account("a", passwords=[local("x")], protocols=("imap",))
    bench = Bench(imap_only)
    told = refused(bench.login("a", "x", protocol="pop3"), Refusal.MISCONFIGURED)
    assert told.text.startswith("POP3 is switched off")
    assert told.fault is Fault.MAILFERRY
    refused(bench.login("a", "y", protocol="pop3"))


@pytest.mark.parametrize("asked_for", [b"alice", b"ALICE@contoso.com", b"Sales@Contoso.com"])
def test_an_authorization_id_may_be_a_login_or_the_mailbox(asked_for: bytes) -> None:
    assert Bench(ALICE).login("alice", "wonderland", authorization_id=asked_for) is ALICE


@pytest.mark.parametrize("asked_for", [b"bob@contoso.com", b"root", b"sales", b" "])
def test_any_other_authorization_id_is_refused_also_when_the_password_is_remembered(asked_for: bytes) -> None:
    bench = Bench(ALICE, BOB)
    bench.login("alice", "wonderland")
    refused(bench.login("alice", "wonderland", authorization_id=asked_for))


# Equal work

MIXED = (
    ALICE,
    BOB,
    account("carol", passwords=[local("c1", ln=3), local("c2", ln=3, networks=["192.0.2.0/24"]), local("c3")]),
    account("dave"),
)
ONE_READING = 2 + 2  # of cost 1 as many as Bob has, of cost 3 as many as Carol has


@pytest.mark.parametrize("login", ["alice", "bob@contoso.com", "carol", "dave", "nobody", "", "a\x01b"])
@pytest.mark.parametrize("password", ["wrong", "", "\x00"])
def test_every_refusal_takes_the_same_work_and_says_the_same(login: str, password: str) -> None:
    bench = Bench(*MIXED)
    assert bench.runs(login, password) == ONE_READING
    assert bench.runs(login, password, verbatim=(b"x\\y", b"z")) == 2 * ONE_READING
    assert bench.login(login, password).args == Bench(*MIXED).login("nobody", "at all").args  # type: ignore[union-attr]


def test_the_work_is_of_the_same_costs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[int] = []
    scrypt = hashlib.scrypt

    def watched(password: bytes, *, salt: bytes, n: int, r: int, p: int, maxmem: int, dklen: int) -> bytes:
        costs.append(n)
        return scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=maxmem, dklen=dklen)

    monkeypatch.setattr(passwords, "scrypt", watched)
    bench = Bench(*MIXED)
    for login in ("alice", "bob@contoso.com", "carol", "dave", "nobody"):
        costs.clear()
        bench.login(login, "wrong")
        assert sorted(costs) == [2, 2, 8, 8]


def test_a_right_password_takes_that_work_too_the_first_time() -> None:
    assert Bench(*MIXED).runs("alice", "wonderland") == ONE_READING


def test_the_same_reading_is_not_tried_twice() -> None:
    assert Bench(ALICE).runs("alice", "x", verbatim=(b"ALICE", b"x")) == 1


def test_a_configuration_without_accounts_hides_that_too() -> None:
    assert Bench().runs("anybody", "x") == 1


def test_a_configuration_with_a_broken_hash_is_no_passdb() -> None:
    with pytest.raises(ValueError, match="scrypt"):
        Bench(account("a", passwords=[dataclasses.replace(local("x"), hash="x")]))


# Remembering


def test_a_verified_password_is_remembered_for_some_minutes() -> None:
    bench = Bench(ALICE)
    assert bench.runs("alice", "wonderland") == 1
    bench.clock_s += REMEMBERED_S - 1
    assert bench.runs("ALICE", "wonderland") == 0
    bench.clock_s += 1
    assert bench.runs("alice", "wonderland") == 1


def test_what_is_remembered_is_the_password_not_the_account() -> None:
    bench = Bench(ALICE)
    bench.login("alice", "wonderland")
    assert bench.runs("alice", "wrong") == 1
    refused(bench.login("alice", "wrong"))


def test_a_remembered_password_is_still_good_for_its_uses_only() -> None:
    bench = Bench(BOB)
    bench.login("bob@contoso.com", "scanner", protocol="smtp")
    refused(bench.login("bob@contoso.com", "scanner", protocol="imap"))


def test_a_wrong_password_is_not_remembered_as_right() -> None:
    bench = Bench(ALICE)
    for _ in range(3):
        refused(bench.login("alice", "wrong"))


def test_a_changed_hash_is_not_satisfied_by_the_memory() -> None:
    before, after = Bench(ALICE), Bench(dataclasses.replace(ALICE, passwords=(local("new"),)))
    before.login("alice", "wonderland")
    after.passdb._remembered = before.passdb._remembered  # even if the memory outlived the configuration,
    after.passdb._secret = before.passdb._secret  # under the same key
    refused(after.login("alice", "wonderland"))


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    bench = Bench(*(account(f"user{n}", passwords=[local("x")]) for n in range(MAX_REMEMBERED + 1)))
    for n in range(MAX_REMEMBERED + 1):
        bench.login(f"user{n}", "x")
    assert bench.runs("user1", "x") == 0
    assert bench.runs("user0", "x") == 1


def test_neither_memory_nor_printed_objects_hold_a_secret() -> None:
    bench = Bench(ALICE)
    bench.login("alice", "wonderland")
    assert "wonderland" not in repr(vars(bench.passdb))
    assert ALICE.passwords[0].hash.rsplit("$", 1)[1] not in repr(refused(bench.login("alice", "wrong")))


# Before the hashes


@pytest.mark.parametrize("login", ["alice", "nobody", ""])
def test_who_may_stop_a_login_is_asked_once_and_before_any_hash(login: str) -> None:
    bench = Bench(*MIXED)
    hashed_by_then: list[int] = []
    verbatim = (b"x\\y", b"z")
    refused(
        outcome(
            bench.start(
                login, "wrong", verbatim=verbatim, before_hashing=lambda: hashed_by_then.append(bench.pool.count)
            )
        )
    )
    assert hashed_by_then == [0]


@pytest.mark.parametrize("login", ["alice", "nobody"])
def test_a_login_that_is_stopped_costs_no_hash_and_ends_as_the_stop_says(login: str) -> None:
    bench = Bench(ALICE)
    stopped = LoginRefused(Refusal.TOO_MANY_ATTEMPTS, "Enough.", fault=Fault.CLIENT)

    def stop() -> None:
        raise stopped

    assert outcome(bench.start(login, "wonderland", before_hashing=stop)) is stopped
    assert bench.pool.count == 0
    assert bench.login("alice", "wonderland") is ALICE


def test_a_remembered_login_is_not_stopped() -> None:
    bench = Bench(ALICE)
    bench.login("alice", "wonderland")

    def stop() -> None:
        raise AssertionError("no hash is needed")

    assert outcome(bench.start("alice", "wonderland", before_hashing=stop)) is ALICE
    with pytest.raises(AssertionError):
        outcome(bench.start("alice", "Wonderland", before_hashing=stop))


# Many at once


def test_the_same_login_many_times_at_once_is_hashed_once() -> None:
    bench = Bench(ALICE)
    bench.pool.holds = True
    logins = [bench.start("alice", "wonderland") for _ in range(200)]
    bench.pool.release()
    assert [outcome(login) for login in logins] == [ALICE] * 200
    assert bench.pool.count == 1


def test_equal_passwords_of_different_logins_are_not_one_run() -> None:
    """Else two unknown logins with one password would take less work than two known ones."""
    bench = Bench(ALICE, BOB)
    bench.pool.holds = True
    for login in ("nobody", "no one"):
        bench.start(login, "x").addErrback(lambda _: None)
    bench.pool.release()
    assert bench.pool.count == 2 * 2


def test_one_who_leaves_does_not_take_the_run_along() -> None:
    bench = Bench(ALICE)
    bench.pool.holds = True
    first, second = bench.start("alice", "wonderland"), bench.start("alice", "wonderland")
    first.cancel()
    bench.pool.release()
    with pytest.raises(CancelledError):
        outcome(first)
    assert outcome(second) is ALICE


def test_no_more_hashes_run_at_once_than_may() -> None:
    bench = Bench(ALICE)
    bench.pool.holds = True
    logins = [bench.start("alice", f"wrong{n}") for n in range(MAX_HASHES_AT_ONCE + 5)]
    assert len(bench.pool.held) == MAX_HASHES_AT_ONCE
    bench.pool.release()
    assert {refused(outcome(login)).refusal for login in logins} == {Refusal.BAD_CREDENTIALS}


@pytest.mark.parametrize("late", ["alice", "nobody"])
def test_beyond_the_queue_everybody_is_told_to_wait(late: str) -> None:
    bench = Bench(ALICE, BOB)
    bench.login("alice", "wonderland")
    bench.pool.holds = True
    logins = [bench.start("alice", f"wrong{n}") for n in range((MAX_HASHES_AT_ONCE + MAX_HASHES_WAITING) // 2)]
    told = refused(bench.login(late, "right or wrong"), Refusal.BUSY)
    assert told.fault is Fault.MAILFERRY
    assert bench.login("alice", "wonderland") is ALICE  # remembered: it needs no hash
    joined = bench.start("alice", "wrong0")  # nor does what is under way already
    bench.pool.release()
    assert all(refused(outcome(login)) for login in [*logins, joined])
    refused(bench.login(late, "wrong"))  # and there is room again


def test_a_pool_that_fails_fails_the_login_and_not_the_next_one() -> None:
    bench = Bench(ALICE)
    bench.pool.holds = True
    login = bench.start("alice", "wonderland")
    bench.pool.held.pop()[1].errback(MemoryError())
    with pytest.raises(MemoryError):
        outcome(login)
    bench.pool.holds = False
    assert bench.login("alice", "wonderland") is ALICE
