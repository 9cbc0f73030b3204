"""How many wrong passwords, from one address and against one login, before passwords are no longer looked at.

Distinct wrong pairs of login and password are counted, not attempts: one typo is tried as PLAIN, LOGIN and LOGIN again
(CLIENTS 0.10), and an old program repeats it every minute. What it is not: the count and the pauses of one connection
(`session.py`), nor the bound on all hashes together (`accounts/passdb.py`). `session.py` asks it for every login; one
throttle outlives all configurations.

- A login that the passdb remembers is never stopped here: who is at work goes on.
- An unknown login is counted like a known one, and told the same.
- A stranger must not lock the owner out: where an account has logged in lately, and on this machine, its logins have no
  limit of their own.
  That it has can be learnt there; it shares its address with few.
- What was wrong is wrong again, without a hash. The answer then comes sooner, which tells nothing: whoever gets it has
  sent this very pair from there before, and got the same.
- Few logins of one address are with the passdb at a time, the others wait: who sends hundreds at once neither outruns
  the count of his wrong ones nor keeps other addresses waiting.
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred

from proxy.accounts.passdb import (
    BUSY,
    MAX_HASHES_AT_ONCE,
    MAX_HASHES_WAITING,
    WRONG,
    PassDb,
    folded,
    keyed_digest,
    read_credentials,
)
from proxy.config.settings import Account
from proxy.login import Credentials, Fault, LoginRefused, Refusal

WRONG_WINDOW_S = 300.0  # since a pair was last said to be wrong
MAX_WRONG_PER_ADDRESS = 30  # all programs of this machine share 127.0.0.1, and an office may have one address
MAX_WRONG_PER_LOGIN = 15
TRUSTED_S = 86_400.0  # who comes every day is known
MAX_TRACKED = 4_096  # of each kind; far beyond one organisation's addresses and logins
MAX_AT_ONCE_PER_ADDRESS = 2 * MAX_HASHES_AT_ONCE  # keeps every thread busy, and a stranger waits for no more than that

Source = IPv4Address | IPv6Network
"""What counts as one address: of IPv6 the /64 that a household, or one machine, has to itself."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    source: Source
    name: bytes
    """Digest of all that decides on right or wrong."""
    pairs: list[tuple[bytes, bytes]]
    """For each reading of the credentials a digest of the login, and one of login and password."""
    local: bool
    """From this machine: the limit of the address is enough, and a stranger elsewhere locks nobody out."""


class _NoTurn(Exception):
    """As many logins of this address as may be are with the passdb."""


class Throttle:
    """Stands before the passdb, whichever is in use. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._secret = secrets.token_bytes(32)
        self._wrong = _Recent(WRONG_WINDOW_S, MAX_TRACKED, now)
        """Names of attempts."""
        self._trusted = _Recent(TRUSTED_S, MAX_TRACKED, now)
        """Logins, each with a source."""
        self._by_source = _Tally(MAX_WRONG_PER_ADDRESS, now)
        self._by_login = _Tally(MAX_WRONG_PER_LOGIN, now)
        self._turns: WeakValueDictionary[Source, _Turns] = WeakValueDictionary()
        """Of each source that has logins under way."""

    async def verify(
        self, passdb: PassDb, credentials: Credentials, *, protocol: str, peer: IPv4Address | IPv6Address
    ) -> Account:
        """What the passdb says, unless this was wrong lately, or too much was.

        Raises:
            LoginRefused: TOO_MANY_ATTEMPTS; or as `PassDb.verify`.
        """
        attempt = self._attempt(passdb, credentials, protocol, peer)
        turns = self._turns.setdefault(attempt.source, _Turns())
        has_turn = False

        def before_hashing() -> None:
            nonlocal has_turn
            self._stop(attempt)
            has_turn = has_turn or turns.take()
            if not has_turn:
                raise _NoTurn

        async def ask() -> Account:
            return await passdb.verify(credentials, protocol=protocol, peer=peer, before_hashing=before_hashing)

        try:
            try:
                account = await ask()
            except _NoTurn:
                await turns.come()
                has_turn = True
                account = await ask()
        except LoginRefused as refused:
            if refused.refusal is Refusal.BAD_CREDENTIALS:
                self._count(attempt)
            raise
        finally:
            if has_turn:
                turns.leave()
        for login in account.logins:
            self._trusted.add((self._digest(folded(login).encode()), attempt.source))
        return account

    def forget(self) -> None:
        """Another passdb is in use: what was wrong may have become right. The counts stay."""
        self._wrong.clear()

    def _attempt(
        self, passdb: PassDb, credentials: Credentials, protocol: str, peer: IPv4Address | IPv6Address
    ) -> _Attempt:
        name = self._digest(
            # Sessions that began before a reload ask the old passdb, and what is wrong there may be right in the new
            # one. An id is given again only when its passdb is gone; by then `forget` was called.
            str(id(passdb)).encode(),
            protocol.encode(),
            str(peer).encode(),  # an account's networks may be smaller than a source
            credentials.login,
            credentials.password,
            credentials.authorization_id,
            *(credentials.verbatim or ()),
        )
        readings = [(login.encode(), password) for login, password in read_credentials(credentials)]
        pairs = [(self._digest(login), self._digest(login, password)) for login, password in readings]
        return _Attempt(source_of(peer), name, pairs, local=peer.is_loopback)

    def _stop(self, attempt: _Attempt) -> None:
        """Raises: LoginRefused: this attempt is not worth a hash."""
        if attempt.name in self._wrong:
            detail = "a wrong password that was tried before, or not for this protocol, address or mailbox"
            raise LoginRefused(Refusal.BAD_CREDENTIALS, WRONG, fault=Fault.CLIENT, detail=detail)
        if for_s := self._by_source.full_for_s(attempt.source):
            raise _too_many(f"from this address ({attempt.source})", MAX_WRONG_PER_ADDRESS, for_s)
        for login, _ in attempt.pairs if not attempt.local else ():
            if (login, attempt.source) not in self._trusted and (for_s := self._by_login.full_for_s(login)):
                raise _too_many("for this login", MAX_WRONG_PER_LOGIN, for_s)

    def _count(self, attempt: _Attempt) -> None:
        self._wrong.add(attempt.name)
        for login, pair in attempt.pairs:
            self._by_source.add(attempt.source, pair)
            self._by_login.add(login, pair)

    def _digest(self, *parts: bytes) -> bytes:
        return keyed_digest(self._secret, *parts)


class _Recent:
    """What happened in the last `for_s` seconds; of more than `most`, the oldest is forgotten."""

    def __init__(self, for_s: float, most: int, now: Callable[[], float]) -> None:
        self._for_s = for_s
        self._most = most
        self._now = now
        self._until: OrderedDict[Hashable, float] = OrderedDict()
        """When each is over; the oldest stands first."""

    def add(self, what: Hashable) -> None:
        self._until[what] = self._now() + self._for_s
        self._until.move_to_end(what)
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def __contains__(self, what: Hashable) -> bool:
        return what in self._until and self._until[what] > self._now()

    def full_for_s(self) -> float:
        """How long it will be until there are fewer than `most`; 0 if there are."""
        if len(self._until) < self._most:
            return 0.0
        return max(0.0, next(iter(self._until.values())) - self._now())

    def clear(self) -> None:
        self._until.clear()


class _Tally:
    """The distinct wrong pairs of each source, or against each login, up to a limit."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._pairs: OrderedDict[Hashable, _Recent] = OrderedDict()
        """The key that was counted longest ago stands first."""

    def add(self, key: Hashable, pair: bytes) -> None:
        self._pairs.setdefault(key, _Recent(WRONG_WINDOW_S, self._limit, self._now)).add(pair)
        self._pairs.move_to_end(key)
        if len(self._pairs) > MAX_TRACKED:
            self._pairs.popitem(last=False)

    def full_for_s(self, key: Hashable) -> float:
        """For how long this key is at the limit still; 0 if it is not."""
        return self._pairs[key].full_for_s() if key in self._pairs else 0.0


class _Turns:
    """At most `MAX_AT_ONCE_PER_ADDRESS` logins of one source at a time; the others wait in the order they came."""

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._handing_on = False

    def take(self) -> bool:
        """Whether one was free, which is now taken."""
        free = self._taken < MAX_AT_ONCE_PER_ADDRESS
        self._taken += free
        return free

    async def come(self) -> None:
        """Wait for one, which is then taken.

        Raises:
            LoginRefused: BUSY: too many wait.
        """
        if len(self._waiting) >= MAX_HASHES_WAITING:
            raise LoginRefused(Refusal.BUSY, BUSY, fault=Fault.CLIENT, detail="too many logins at once from there")
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        await turn

    def leave(self) -> None:
        self._taken -= 1
        if self._handing_on:
            return  # one who was let in is out again already: a chain of calls would grow as long as the queue
        self._handing_on = True
        while self._waiting and self.take():
            self._waiting.popleft().callback(None)
        self._handing_on = False


def source_of(peer: IPv4Address | IPv6Address) -> Source:
    return peer if isinstance(peer, IPv4Address) else IPv6Network((int(peer), 64), strict=False)


def _too_many(whence: str, limit: int, for_s: float) -> LoginRefused:
    minutes = math.ceil(for_s / 60)
    text = (
        f"Too many wrong passwords {whence}: no password is looked at for {minutes} minute{'s' * (minutes > 1)}. "
        "Programs that are logged in go on."
    )
    detail = f"{limit} within {WRONG_WINDOW_S:g} seconds"
    return LoginRefused(Refusal.TOO_MANY_ATTEMPTS, text, fault=Fault.CLIENT, detail=detail)
