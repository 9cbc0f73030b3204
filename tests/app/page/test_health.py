"""/health: true only when mailferry can serve; it counts accounts without names."""

from __future__ import annotations

import json

import pytest
from twisted.internet.defer import Deferred, fail

from proxy.accounts.store import StoreUnavailable
from proxy.app import desk
from tests.app.home import ALICE, DESK
from tests.app.page.visitor import Served, Visitor


def reasons(served: Served) -> list[str]:
    """Why it is not well."""
    reply = Visitor(served.port).ask("GET", "/health")
    told = json.loads(reply.text)
    assert (reply.status, told["status"]) == (503, "failing")
    assert ALICE not in reply.text
    found: list[str] = told["reasons"]
    return found


def test_health_needs_no_cookie_and_names_nobody(served_furnished: Served) -> None:
    reply = Visitor(served_furnished.port).ask("GET", "/health")
    assert reply.status == 200
    assert reply.header("content-type") == "application/json"
    told = json.loads(reply.text)
    assert told["status"] == "ok"
    assert told["accounts"] == {"connecting": 1, "sign_in_needed": 1}
    assert ALICE not in reply.text
    assert DESK not in reply.text


def test_a_store_that_cannot_be_read(served_furnished: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    store = served_furnished.beside.office.store
    monkeypatch.setattr(store, "load", lambda name: fail(StoreUnavailable(f"The disk of {ALICE} is full.")))
    assert reasons(served_furnished) == ["the store does not answer"]


def test_a_store_that_hangs(served_furnished: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is gone without a word."""
    monkeypatch.setattr(desk, "STORE_LIMIT_S", 0.05)
    monkeypatch.setattr(served_furnished.beside.office.store, "load", lambda name: Deferred())
    assert reasons(served_furnished) == ["the store does not answer"]


def test_a_listener_that_does_not_accept(served_furnished: Served) -> None:
    served_furnished.beside.desk.shut = lambda: ["127.0.0.1 1143"]
    assert reasons(served_furnished) == ["no connection is accepted at 127.0.0.1 1143"]
    served_furnished.beside.desk.shut = list
    assert Visitor(served_furnished.port).ask("GET", "/health").status == 200
