"""How many at once: sessions in total, and upstream sessions of each account.

Exchange counts connections for each mailbox (FACTS 3.1, 3.2); a session beyond its account's share waits a while for
another to end, and is then told that the account is busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from proxy.login import Fault, LoginRefused, Refusal

MAX_SESSIONS = 10_000  # two descriptors each; far beyond one organisation's mail programs
QUEUE_LIMIT_S = 20.0  # CLIENTS 4: a short queue, within the 60 s that old Outlook waits
MAX_QUEUED = 64  # for each account: more than that is a program gone wild


@dataclass(slots=True)
class _Places:
    taken: int = 0
    queue: deque[Deferred[None]] = field(default_factory=deque)


class Gate:
    """Lets at most so many sessions of one kind through at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._places: dict[str, _Places] = {}

    @asynccontextmanager
    async def place(self, kind: str, limit: int) -> AsyncIterator[None]:
        """Hold one of `limit` places of this kind.

        Raises:
            LoginRefused(BUSY): none became free in time.
        """
        places = self._places.setdefault(kind, _Places())
        if places.taken < limit:
            places.taken += 1
        else:
            await self._queue(places, limit)
        try:
            yield
        finally:
            self._leave(kind, places)

    async def _queue(self, places: _Places, limit: int) -> None:
        """Wait for a place that is handed over by the one who leaves it."""
        busy = LoginRefused(
            Refusal.BUSY, f"Too many sessions at once for this account; {limit} are allowed.", fault=Fault.CLIENT
        )
        if len(places.queue) >= MAX_QUEUED:
            raise busy
        turn: Deferred[None] = Deferred(places.queue.remove)
        places.queue.append(turn)
        try:
            await turn.addTimeout(QUEUE_LIMIT_S, self._clock)
        except TimeoutError:
            raise busy from None

    def _leave(self, kind: str, places: _Places) -> None:
        if places.queue:
            places.queue.popleft().callback(None)
            return
        places.taken -= 1
        if not places.taken:
            del self._places[kind]
