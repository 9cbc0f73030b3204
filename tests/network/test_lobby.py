"""The lobby: who has to make room in it, and for whom."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from proxy.network import lobby as lobby_module
from proxy.network.lobby import Lobby

ALICE, MALLORY, BOB = ip_address("192.0.2.1"), ip_address("198.51.100.9"), ip_address("2001:db8::1")


class Guest:
    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self.gone = False

    def make_room(self) -> None:
        self.gone = True
        self._lobby.leave(self)  # as a session does when it ends


@pytest.fixture
def lobby(monkeypatch: pytest.MonkeyPatch) -> Lobby:
    monkeypatch.setattr(lobby_module, "MAX_IN_LOBBY", 5)
    return Lobby()


def came(lobby: Lobby, address: object, count: int = 1) -> list[Guest]:
    guests = [Guest(lobby) for _ in range(count)]
    for guest in guests:
        lobby.enter(guest, address)  # type: ignore[arg-type]
    return guests


def test_there_is_room_for_so_many(lobby: Lobby) -> None:
    guests = came(lobby, ALICE, 5)
    assert not any(guest.gone for guest in guests)
    assert len(lobby) == 5
    lobby.leave(guests[0])
    came(lobby, ALICE)
    assert not any(guest.gone for guest in guests)


def test_the_oldest_of_the_biggest_crowd_makes_room(lobby: Lobby) -> None:
    (alice,) = came(lobby, ALICE)
    mob = came(lobby, MALLORY, 4)
    (bob,) = came(lobby, BOB)
    assert [guest.gone for guest in mob] == [True, False, False, False]
    more = came(lobby, MALLORY, 20)
    assert not alice.gone
    assert not bob.gone
    assert [guest.gone for guest in [*mob, *more]] == [True] * 21 + [False] * 3
    assert len(lobby) == 5


def test_addresses_of_one_household_are_one_crowd(lobby: Lobby) -> None:
    (alice,) = came(lobby, ALICE)
    mob = [came(lobby, ip_address(f"2001:db8:0:1::{number}"))[0] for number in range(1, 6)]
    assert not alice.gone
    assert [guest.gone for guest in mob] == [True, False, False, False, False]


def test_leaving_twice_does_no_harm(lobby: Lobby) -> None:
    (alice,) = came(lobby, ALICE)
    lobby.leave(alice)
    lobby.leave(alice)
    assert len(lobby) == 0
