"""How many at once, and how fast: sessions in total, and upstream sessions of each mailbox.

Exchange counts connections and messages for each mailbox (FACTS 3.1, 3.2); a session beyond its mailbox's share waits a
while, and is then told that the account is busy. So is one that comes while Exchange wants no new sessions at all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from proxy.login import Fault, LoginRefused, Refusal

MAX_SESSIONS = 10_000  # two descriptors each; far beyond one organisation's mail programs
QUEUE_LIMIT_S = 20.0  # CLIENTS 4: a short queue, within the 60 s that old Outlook waits
MAX_QUEUED = 64  # for each account: more than that is a program gone wild
PACE_S = 60.0  # Exchange counts messages by the minute


@dataclass(slots=True)
class _Places:
    taken: int = 0
    queue: deque[Deferred[bool]] = field(default_factory=deque)
    """Each fires with True when it is handed a place, and with False when a hold begins."""


class Gate:
    """Lets at most so many sessions of one kind through at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._places: dict[str, _Places] = {}
        self._starts: dict[str, deque[float]] = {}
        """When the sessions of a paced kind began, or will, in the last `PACE_S`."""
        self._holds: dict[str, float] = {}
        """Until when no session of a kind begins."""

    @asynccontextmanager
    async def place(self, kind: str, limit: int, per_minute: int | None = None) -> AsyncIterator[None]:
        """Hold one of `limit` places of this kind; of one that is paced, `per_minute` sessions begin in a minute.

        Raises:
            LoginRefused(BUSY): none became free in time, or the kind is on hold for longer.
        """
        if per_minute is not None:
            await self._wait_out_hold(kind)  # who is turned away is not counted
            await self._pace(kind, per_minute)
        places = await self._take(kind, limit)
        try:
            yield
        finally:
            self._leave(kind, places)

    def taken(self, kind: str) -> int:
        """How many sessions of this kind there are now."""
        places = self._places.get(kind)
        return places.taken if places else 0

    def hold(self, kind: str, hold_s: float) -> None:
        """Let no new session of this kind begin for so long; the longest hold counts, and running sessions go on."""
        now = self._clock.seconds()
        self._holds = {other: until for other, until in self._holds.items() if until > now}
        self._holds[kind] = max(now + hold_s, self._holds.get(kind, now))
        if places := self._places.get(kind):
            waiting, places.queue = places.queue, deque()
            while waiting:
                waiting.popleft().callback(False)

    async def _wait_out_hold(self, kind: str) -> None:
        latest = self._clock.seconds() + QUEUE_LIMIT_S
        while (until := self._holds.get(kind, 0.0)) > (now := self._clock.seconds()):
            if until > latest:
                raise _throttled(until - now)
            await deferLater(self._clock, until - now)

    async def _take(self, kind: str, limit: int) -> _Places:
        """A place among these, now or in turn."""
        while True:
            await self._wait_out_hold(kind)
            places = self._places.setdefault(kind, _Places())
            if places.taken < limit:
                places.taken += 1
                return places
            if await self._queue(places, limit):
                return places

    async def _pace(self, kind: str, per_minute: int) -> None:
        """Begin at once, or when the minute allows it; a mail program's session carries a message, most often."""
        now = self._clock.seconds()
        starts = self._starts.setdefault(kind, deque())
        while starts and starts[0] <= now - PACE_S:
            starts.popleft()
        wait_s = max(0.0, starts[-per_minute] + PACE_S - now) if len(starts) >= per_minute else 0.0
        if wait_s > QUEUE_LIMIT_S:
            raise _busy(f"Too many messages at once for this account; {per_minute} a minute are allowed.")
        starts.append(now + wait_s)
        if wait_s:
            await deferLater(self._clock, wait_s)

    async def _queue(self, places: _Places, limit: int) -> bool:
        """Wait for a place that is handed over by the one who leaves it. False: a hold began before that."""
        busy = _busy(f"Too many sessions at once for this account; {limit} are allowed.")
        if len(places.queue) >= MAX_QUEUED:
            raise busy
        turn: Deferred[bool] = Deferred(places.queue.remove)
        places.queue.append(turn)
        try:
            return await turn.addTimeout(QUEUE_LIMIT_S, self._clock)
        except TimeoutError:
            raise busy from None

    def _leave(self, kind: str, places: _Places) -> None:
        if places.queue:
            places.queue.popleft().callback(True)
            return
        places.taken -= 1
        if not places.taken:
            del self._places[kind]


def _throttled(wait_s: float) -> LoginRefused:
    text = f"Not your password: Microsoft throttles this mailbox. It goes on in {math.ceil(wait_s)} s."
    return LoginRefused(Refusal.BUSY, text, fault=Fault.EXCHANGE)


def _busy(text: str) -> LoginRefused:
    return LoginRefused(Refusal.BUSY, text, fault=Fault.CLIENT)
