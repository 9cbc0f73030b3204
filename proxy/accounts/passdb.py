"""The passdb: who logs in. A local login and password in, the `Account` out, or a refusal.

Local passwords are scrypt hashes in the configuration, as PHC strings. What it is not: it never sees a token, keeps no
password, and throttles nobody. Who calls it: `network/throttle.py` for every login; the command line makes passwords
and hashes.

Equal work. Whether a login exists must not show in the time of the refusal. So there is a *profile*: for each scrypt
cost in the configuration, the largest number of hashes that one account has at it. Every reading of every login runs
exactly the profile: the account's own hashes first, dummies for the rest. With one password per account that is one
run; the bound is two readings times the profile's size. A login that is remembered, or under way already, runs nothing.
Who may stop a login before its hashes (`before_hashing`) is asked for known and unknown logins alike.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b, scrypt
from ipaddress import IPv4Address, IPv6Address

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.python.failure import Failure

from proxy.config.settings import Account, LocalPassword
from proxy.login import Credentials, Fault, LoginRefused, Refusal

SCRYPT_LN = 14  # log2 of the cost: 16 MiB and 48 ms of a core (SPEED trap 5)
SCRYPT_R = 8
SCRYPT_P = 1
SALT_OCTETS = 16
HASH_OCTETS = 32
MAX_SCRYPT_OCTETS = 1 << 28  # a hash that needs more memory than 256 MiB is refused, not tried
MAX_SCRYPT_P = 16  # nor one that multiplies its time by more

PASSWORD_CHARACTERS = 24  # CLIENTS 0.7: ASCII, without quotes and backslashes; 138 bits
PASSWORD_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"  # noqa: S105 - look-alikes left out

REMEMBERED_S = 600  # old programs log in every minute (SPEED trap 5); a cold login must stay the exception
MAX_REMEMBERED = 4_096  # proofs; a digest of 32 octets each
MAX_HASHES_AT_ONCE = max(1, (os.cpu_count() or 1) - 1)  # one core is left to the mail that flows
MAX_HASHES_WAITING = 400  # some 20 s of one core, which is as long as mail programs wait patiently (CLIENTS 3.1)

_PHC = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")

WRONG = "Wrong login or password. mailferry's own password for this account is asked for, not Microsoft's."
BUSY = "Too many logins at once. Please try again in a minute."


@dataclass(frozen=True, slots=True)
class _Cost:
    ln: int = SCRYPT_LN
    r: int = SCRYPT_R
    p: int = SCRYPT_P

    def run(self, password: bytes, salt: bytes, octets: int) -> bytes:
        # OpenSSL counts all its buffers against `maxmem`, not only the large one.
        room = 128 * self.r * ((1 << self.ln) + self.p + 2)
        return scrypt(password, salt=salt, n=1 << self.ln, r=self.r, p=self.p, maxmem=room, dklen=octets)


@dataclass(frozen=True, slots=True)
class _Hash:
    """A PHC string, taken apart."""

    cost: _Cost
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def parse(cls, phc: str) -> _Hash:
        """Raises: ValueError if it is no scrypt PHC string, or one that costs too much; the text shows none of it."""
        found = _PHC.fullmatch(phc)
        if found is None:
            raise ValueError("not a scrypt hash of the form $scrypt$ln=14,r=8,p=1$salt$hash")
        ln, r, p = (int(digits) for digits in found.groups()[:3])
        # OpenSSL runs none whose ln is 16·r or more: the cost must fit into a block.
        if min(ln, r, p) < 1 or ln >= 16 * r or p > MAX_SCRYPT_P or (128 * r) << ln > MAX_SCRYPT_OCTETS:
            raise ValueError("a scrypt hash whose cost is out of bounds")
        try:
            return cls(_Cost(ln, r, p), _unpadded(found[4]), _unpadded(found[5]))
        except binascii.Error:
            raise ValueError("a scrypt hash with broken base64") from None

    def verify(self, password: bytes) -> bool:
        return hmac.compare_digest(self.cost.run(password, self.salt, len(self.hash)), self.hash)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def hash_password(password: str) -> str:
    """The password's scrypt PHC string, as passlib prints it; about 50 ms of work."""
    salt = secrets.token_bytes(SALT_OCTETS)
    digest = _Cost().run(password.encode(), salt, HASH_OCTETS)
    salt_text, digest_text = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    return f"$scrypt$ln={SCRYPT_LN},r={SCRYPT_R},p={SCRYPT_P}${salt_text}${digest_text}"


def verify_hash(password: bytes, phc: str) -> bool:
    """Whether this hash is of this password.

    Raises:
        ValueError: not a scrypt PHC string, or one that costs too much.
    """
    return _Hash.parse(phc).verify(password)


def generate_password() -> str:
    """A new local password: any mail program can store it, and a person can type it off a sheet of paper."""
    return "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_CHARACTERS))


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
        self._hashes = {local.hash: _Hash.parse(local.hash) for account in accounts for local in account.passwords}
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

    def _profile(self, accounts: Sequence[Account]) -> dict[_Cost, list[str]]:
        """For each cost as many dummies as any account has hashes."""
        most = Counter[_Cost]()
        for account in accounts:
            most |= Counter(self._hashes[phc].cost for phc in {local.hash for local in account.passwords})
        profile: dict[_Cost, list[str]] = {}
        for cost, count in (most or {_Cost(): 1}).items():
            profile[cost] = [f"dummy {cost} {number}" for number in range(count)]
            for dummy in profile[cost]:
                self._hashes[dummy] = _Hash(cost, secrets.token_bytes(SALT_OCTETS), secrets.token_bytes(HASH_OCTETS))
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
