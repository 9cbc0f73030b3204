"""The lobby: connections that have not logged in yet. When it is full, the biggest crowd in it makes room.

Who holds hundreds of silent or slow connections takes their places from himself: it is the oldest connection of the
address with most of them that goes. So nobody is kept out by another address, and at his own whoever logs in at once
stays. `session.py` enters and leaves; what a connection may cost while it is here is bounded by the front's buffers.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from proxy.network.throttle import Source, source_of

MAX_IN_LOBBY = 2_000
"""Connections; a mail program is here for milliseconds, or up to 25 s while Exchange does not answer. Each takes some
30 KiB, and a line that grows up to 8 KiB: 80 MiB together."""


class Guest(Protocol):
    def make_room(self) -> None:
        """Say goodbye, and end soon."""
        ...


class Lobby:
    """Who is there, by address, in the order they came."""

    def __init__(self) -> None:
        self._crowds: dict[Source, dict[Guest, None]] = {}
        self._sources: dict[Guest, Source] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def enter(self, guest: Guest, peer: IPv4Address | IPv6Address) -> None:
        source = source_of(peer)
        self._sources[guest] = source
        self._crowds.setdefault(source, {})[guest] = None
        if len(self._sources) > MAX_IN_LOBBY:
            biggest: dict[Guest, None] = max(self._crowds.values(), key=len)
            oldest = next(iter(biggest))
            self.leave(oldest)
            oldest.make_room()

    def leave(self, guest: Guest) -> None:
        """Also for one who was never there, or had to make room."""
        source = self._sources.pop(guest, None)
        if source is not None:
            crowd = self._crowds[source]
            del crowd[guest]
            if not crowd:
                del self._crowds[source]
