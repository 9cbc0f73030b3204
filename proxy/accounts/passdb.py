"""The passdb: who logs in. A local login and password in, the `Account` out, or a refusal.

Local passwords are scrypt hashes in the configuration, as PHC strings. What it is not: it never sees a token, keeps no
password, and throttles nobody. Who calls it: `network/throttle.py` for every login.

Equal work. Whether a login exists must not show in the time of the refusal. So there is a *profile*: for each scrypt
cost in the configuration, the largest number of hashes that one account has at it. Every reading of every login runs
exactly the profile: the account's own hashes first, dummies for the rest. With one password per account that is one
run; the bound is two readings times the profile's size. A login that is remembered, or under way already, runs nothing.
Who may stop a login before its hashes (`before_hashing`) is asked for known and unknown logins alike.
"""

from __future__ import annotations

import os
import secrets
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.python.failure import Failure

from proxy.accounts.passwords import HASH_OCTETS, SALT_OCTETS, Cost, Hash
from proxy.config.settings import Account, LocalPassword
from proxy.login import Credentials, Fault, LoginRefused, Refusal

REMEMBERED_S = 600  # old programs log in every minute (SPEED trap 5); a cold login must stay the exception
MAX_REMEMBERED = 4_096  # proofs; a digest of 32 octets each
MAX_HASHES_AT_ONCE = max(1, (os.cpu_count() or 1) - 1)  # one core is left to the mail that flows
MAX_HASHES_WAITING = 400  # some 20 s of one core, which is as long as mail programs wait patiently (CLIENTS 3.1)

WRONG = "Wrong login or password. mailferry's own password for this account is asked for, not Microsoft's."
BUSY = "Too many logins at once. Please try again in a minute."


@dataclass(frozen=True, slots=True)
class _Trial:
    """One run of the profile: is this hash of this password?"""

    password: bytes = field(repr=False)
    phc: str = field(repr=False)
    proves: Account | None
    """Who logs in if it is; None where the run is only for the time it takes."""
    digest: bytes = field(repr=False)
    """Of login, password and hash, under the process's own key: the name of this run."""


class PassDb:
    """The accounts of one configuration; a new configuration is a new passdb.

    `run` does a job in a thread pool: `partial(deferToThreadPool, reactor, pool)`, with a pool of its own of
    `MAX_HASHES_AT_ONCE` threads. `now` is a monotonic clock in seconds.

    Raises:
        ValueError: an account's hash is none.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        *,
        run: Callable[[Callable[[], bool]], Deferred[bool]],
        now: Callable[[], float],
    ) -> None:
        self._accounts = {folded(login): account for account in accounts for login in account.logins}
        self._hashes = {local.hash: Hash.parse(local.hash) for account in accounts for local in account.passwords}
        self._dummies = self._profile(accounts)
        self._run = run
        self._now = now
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        """Digests of proofs, and when they are forgotten; the oldest stands first."""
        self._under_way: dict[bytes, list[Deferred[bool]]] = {}
        """Digests of runs that wait or work, and who waits for each."""
        self._turns = DeferredSemaphore(MAX_HASHES_AT_ONCE)

    async def verify(
        self,
        credentials: Credentials,
        *,
        protocol: str,
        peer: IPv4Address | IPv6Address | None,
        before_hashing: Callable[[], None] | None = None,
    ) -> Account:
        """The account whose login and password these are. Without a `peer`, passwords with networks do not count.

        `before_hashing` is called once, before any hash is run, unless the login is remembered; what it raises is the
        result.

        Raises:
            LoginRefused: BAD_CREDENTIALS; BUSY; or MISCONFIGURED if the password is right but the account's protocol
                is switched off: asking for the password again could not help.
        """
        readings = read_credentials(credentials)
        asked_for = folded(_text(credentials.authorization_id))
        trials = [trial for reading in readings for trial in self._trials(reading, asked_for, protocol, peer)]
        account = self._remembered_account(trials)
        if account is None:
            if before_hashing is not None:
                before_hashing()
            account = await self._proved_account(trials)
        if account is None:
            known = any(login in self._accounts for login, _ in readings)
            detail = "wrong password, or not for this protocol, address or mailbox" if known else "unknown login"
            raise LoginRefused(Refusal.BAD_CREDENTIALS, WRONG, fault=Fault.CLIENT, detail=detail)
        if protocol not in account.protocols:
            text = f"{protocol.upper()} is switched off for this account in mailferry's configuration."
            raise LoginRefused(Refusal.MISCONFIGURED, text, fault=Fault.MAILFERRY)
        return account

    def _trials(
        self, reading: tuple[str, bytes], asked_for: str, protocol: str, peer: IPv4Address | IPv6Address | None
    ) -> Iterator[_Trial]:
        """The profile, run for this reading: as many trials of each cost, whether or not there is such an account."""
        login, password = reading
        account = self._accounts.get(login) if _acceptable(login, password) else None
        proofs: dict[str, Account | None] = {}
        if account is not None:
            may_open = asked_for in ("", folded(account.mailbox), *map(folded, account.logins))
            for local in account.passwords:
                proves = may_open and _counts(local, protocol, peer)
                proofs[local.hash] = account if proves else proofs.get(local.hash)
        own = Counter(self._hashes[phc].cost for phc in proofs)
        for cost, dummies in self._dummies.items():
            proofs.update(dict.fromkeys(dummies[own[cost] :]))
        for phc, proves_whom in proofs.items():
            yield _Trial(password, phc, proves_whom, keyed_digest(self._secret, login.encode(), password, phc.encode()))

    def _remembered_account(self, trials: Sequence[_Trial]) -> Account | None:
        now = self._now()
        while self._remembered and next(iter(self._remembered.values())) <= now:
            self._remembered.popitem(last=False)
        return next((t.proves for t in trials if t.proves is not None and t.digest in self._remembered), None)

    async def _proved_account(self, trials: Sequence[_Trial]) -> Account | None:
        fresh = {trial.digest for trial in trials} - self._under_way.keys()
        if len(self._under_way) + len(fresh) > MAX_HASHES_AT_ONCE + MAX_HASHES_WAITING:
            raise LoginRefused(Refusal.BUSY, BUSY, fault=Fault.MAILFERRY, detail="too many password hashes at once")
        # All of them, and to the end: a run that is left out would show in the time.
        try:
            fits = await gatherResults([self._fits(trial) for trial in trials], consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()
        for trial, fit in zip(trials, fits, strict=True):
            if fit and trial.proves is not None:
                self._remember(trial.digest)
                return trial.proves
        return None

    def _fits(self, trial: _Trial) -> Deferred[bool]:
        """The trial's result. The same trial is run once for all who wait; one who leaves does not take it along."""
        waiter: Deferred[bool] = Deferred()
        if trial.digest in self._under_way:
            self._under_way[trial.digest].append(waiter)
            return waiter

        def tell(result: bool | Failure) -> None:
            for each in self._under_way.pop(trial.digest):
                each.callback(result)

        self._under_way[trial.digest] = [waiter]
        self._turns.run(self._run, partial(self._hashes[trial.phc].verify, trial.password)).addBoth(tell)
        return waiter

    def _remember(self, digest: bytes) -> None:
        self._remembered[digest] = self._now() + REMEMBERED_S
        self._remembered.move_to_end(digest)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _profile(self, accounts: Sequence[Account]) -> dict[Cost, list[str]]:
        """For each cost as many dummies as any account has hashes."""
        most = Counter[Cost]()
        for account in accounts:
            most |= Counter(self._hashes[phc].cost for phc in {local.hash for local in account.passwords})
        profile: dict[Cost, list[str]] = {}
        for cost, count in (most or {Cost(): 1}).items():
            profile[cost] = [f"dummy {cost} {number}" for number in range(count)]
            for dummy in profile[cost]:
                self._hashes[dummy] = Hash(cost, secrets.token_bytes(SALT_OCTETS), secrets.token_bytes(HASH_OCTETS))
        return profile


def _counts(local: LocalPassword, protocol: str, peer: IPv4Address | IPv6Address | None) -> bool:
    """Whether this password may be used with this protocol, from this address."""
    near = not local.networks or (peer is not None and any(peer in network for network in local.networks))
    return near and protocol in local.protocols


def read_credentials(credentials: Credentials) -> list[tuple[str, bytes]]:
    """Folded login and UTF-8 password, in each way that the bytes can be read: as unquoted, and as sent."""
    pairs = [(credentials.login, credentials.password)]
    if credentials.verbatim is not None:
        pairs.append(credentials.verbatim)
    return list(dict.fromkeys((folded(_text(login)), _text(password).encode()) for login, password in pairs))


def _text(sent: bytes) -> str:
    """UTF-8, or else the code page of old Windows programs (CLIENTS 1.2); five octets that it lacks are Latin-1's."""
    for charset in ("utf-8", "cp1252"):
        try:
            return sent.decode(charset)
        except UnicodeDecodeError:
            continue
    return sent.decode("latin-1")


def folded(login: str) -> str:
    """Logins that differ only in case, or in how an accent is composed, are the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", login).casefold())


def keyed_digest(key: bytes, *parts: bytes) -> bytes:
    """32 octets that stand for these parts, and tell nobody without the key what they were."""
    told_apart = b"".join(len(part).to_bytes(4) + part for part in parts)
    return blake2b(told_apart, key=key, digest_size=32).digest()


def _acceptable(login: str, password: bytes) -> bool:
    """Not empty, and without control characters (CLIENTS 1.2): the rule of `protocols/sasl.py`."""
    return bool(login and password) and not any(octet < 0x20 or octet == 0x7F for octet in login.encode() + password)
