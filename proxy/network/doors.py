"""The listening sockets of all listeners. They change as a whole or not at all; what came through them goes on.

A socket is ours, bound here, or systemd's, handed over at the start (`handed.py`). It knows nothing of sessions;
`listener.py` makes one of each connection.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.config.settings import LOOPBACK_ADDRESSES, Listener
from proxy.log import Log
from proxy.network.handed import Handed
from proxy.network.port import Peer, Port, bind
from proxy.network.reactor import Reactor
from proxy.network.session import Door

CameIn = Callable[[Door, socket.socket, Peer], None]

log = Log("listener")


class CannotListen(Exception):
    """An address is taken, not ours, or needs more rights; the text says which and why."""


@dataclass(slots=True)
class _Entrance:
    """A socket, and the door it leads to: none where no listener wants a socket of systemd's."""

    port: Port
    door: Door | None = None
    held_as: str | None = None
    """What systemd calls the socket; None: it is ours."""

    def is_for(self, listener: Listener, address: str) -> bool:
        """Whether the listener is served here at this one of its addresses.

        The address counts with systemd's sockets too: what may be plain text was judged by it.
        """
        if ipaddress.ip_address(self.port.address.partition("%")[0]) != ipaddress.ip_address(address):
            return False
        if self.held_as is not None:
            return (self.held_as, self.port.number) == (listener.socket, listener.port)
        ours = self.door.listener if self.door else listener
        return (ours.protocol, ours.port) == (listener.protocol, listener.port)


@dataclass(frozen=True, slots=True)
class _Missing:
    """Sockets that a door lacks. The number is 0 where any will do."""

    door: Door
    addresses: tuple[str, ...]
    number: int


class Doors:
    """Each connection is handed to `came_in`, with the door that its socket leads to at that time."""

    def __init__(self, came_in: CameIn, reactor: Reactor, handed: Handed = ()) -> None:
        """`handed`: systemd's sockets. Those that nobody wants stay open: a later configuration may."""
        self._came_in = came_in
        self._reactor = reactor
        self._entrances = [_Entrance(Port(sock, _turn_away, reactor), held_as=name) for name, sock in handed]

    @property
    def ports(self) -> list[Port]:
        return [entrance.port for entrance in self._entrances]

    def become(self, doors: Sequence[Door]) -> None:
        """Listen for these and for nothing else. A socket that is wanted before and after stays open all the time.

        Raises:
            CannotListen: all is as it was.
        """
        rest, kept, missing = list(self._entrances), list[tuple[_Entrance, Door]](), list[_Missing]()
        for door in doors:
            found = _found(door.listener, rest)
            rest = [entrance for entrance in rest if entrance not in found]
            kept += [(entrance, door) for entrance in found]
            missing.append(_missing(door, found))
        leaving = [entrance for entrance in rest if entrance.held_as is None]
        opened = self._replace(leaving, missing)
        for entrance, door in kept:
            self._lead(entrance, door)
        unwanted = [entrance for entrance in rest if entrance.held_as is not None]
        for entrance in unwanted:
            _disown(entrance)
        self._entrances = [*(entrance for entrance, _ in kept), *opened, *unwanted]

    def close(self) -> None:
        """Listen for nobody; who comes to a socket of systemd's waits for the next process."""
        for entrance in self._entrances:
            entrance.port.close()
        self._entrances = []

    def _replace(self, leaving: Sequence[_Entrance], missing: Sequence[_Missing]) -> list[_Entrance]:
        """Close the one and open the other: closed first are those whose port may be wanted at another address.

        Raises:
            CannotListen: nothing is closed and nothing open.
        """
        numbers = {each.number for each in missing if each.addresses}
        first = [entrance for entrance in leaving if entrance.port.number in numbers]
        for entrance in first:
            entrance.port.close()
        opened: list[_Entrance] = []
        try:
            for each in missing:
                self._open_missing(each, opened)
        except CannotListen:
            for entrance in opened:
                entrance.port.close()
            for entrance in first:
                self._reopen(entrance)
            raise
        for entrance in leaving:
            entrance.port.close()
            log.info("no longer listening", address=entrance.port.address, port=entrance.port.number)
        return opened

    def _open_missing(self, missing: _Missing, opened: list[_Entrance]) -> None:
        """Raises: CannotListen: what is `opened` until then is open."""
        number, listener = missing.number, missing.door.listener
        for address in missing.addresses:
            if address == "::1" and listener.address == "localhost" and not _has_ipv6_loopback():
                log.info("this machine has no IPv6 loopback", listener=listener.protocol)
                continue
            try:
                sock = bind(address, number)
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else str(error)
                raise CannotListen(f"{listener.protocol} cannot listen on {address} port {number}: {why}") from None
            entrance = _Entrance(Port(sock, _turn_away, self._reactor))
            opened.append(entrance)
            self._lead(entrance, missing.door)
            number = entrance.port.number  # port 0: the second family takes the first one's

    def _reopen(self, entrance: _Entrance) -> None:
        try:
            sock = bind(entrance.port.address, entrance.port.number)
        except OSError as error:  # somebody took it in this moment
            log.error("port lost", address=entrance.port.address, port=entrance.port.number, reason=str(error))
        else:
            entrance.port = Port(sock, entrance.port.accepted, self._reactor)

    def _lead(self, entrance: _Entrance, door: Door) -> None:
        """Who comes in from now on comes to this door."""
        if entrance.door is None or entrance.door.listener != door.listener:
            log.info(
                "listening",
                listener=door.protocol.name,
                address=entrance.port.address,
                port=entrance.port.number,
                tls=door.listener.tls.value,
                held_by="systemd" if entrance.held_as is not None else None,
            )
        entrance.door = door
        entrance.port.accepted = partial(self._came_in, door)


def _addresses(listener: Listener) -> tuple[str, ...]:
    return LOOPBACK_ADDRESSES if listener.address == "localhost" else (listener.address,)


def _found(listener: Listener, entrances: Sequence[_Entrance]) -> list[_Entrance]:
    """The listener's own among these: systemd's, or else one for each of its addresses."""
    by_address = [[each for each in entrances if each.is_for(listener, address)] for address in _addresses(listener)]
    held = [each for found in by_address for each in found if each.held_as is not None]
    return held or [found[0] for found in by_address if found]


def _missing(door: Door, found: Sequence[_Entrance]) -> _Missing:
    """What systemd listens on for a door is all that it gets."""
    has = {entrance.port.address for entrance in found}
    complete = any(entrance.held_as is not None for entrance in found)
    addresses = () if complete else tuple(each for each in _addresses(door.listener) if each not in has)
    return _Missing(door, addresses, found[0].port.number if found else door.listener.port)


def _disown(entrance: _Entrance) -> None:
    """Nobody listens here: who connects is turned away at once, where in a closed socket's queue he would wait."""
    log.warning(
        "no listener for a socket of systemd's",
        socket=entrance.held_as,
        address=entrance.port.address,
        port=entrance.port.number,
        remedy="write a listener with this address and port, or take it out of mailferry.socket",
    )
    entrance.door, entrance.port.accepted = None, _turn_away


def _turn_away(sock: socket.socket, peer: Peer) -> None:  # noqa: ARG001
    sock.close()


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
