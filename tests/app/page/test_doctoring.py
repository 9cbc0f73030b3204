"""The doctor on the page: begun by a form, shown while it works, and what it found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from unittest import mock

import pytest

from proxy.app.doctor.examination import Looking
from proxy.app.doctor.findings import Finding, fail, ok
from proxy.app.page import doctoring
from proxy.login import Fault
from tests.app.home import ALICE, PATIENCE_S
from tests.app.page.visitor import Reply, Visitor
from tests.servers.child import wait_until

OF_ALICE = "/doctor/alice%40contoso.com"


class Patient:
    """Stands for the checks: holds until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.seen: list[str | None] = []

    def examine(self, scene: object) -> Iterator[Looking | Finding]:
        self.seen.append(getattr(scene, "login", None))
        yield ok("first", "First thing", "It is well.")
        yield Looking("the second thing", 2, 3)
        assert self.let_go.wait(PATIENCE_S)
        yield fail("third", "Third <b>thing</b>", "It broke.", Fault.NETWORK, "Mend it.", details=["as seen"])


@pytest.fixture
def patient() -> Iterator[Patient]:
    made = Patient()
    with mock.patch.object(doctoring, "examine", made.examine):
        yield made
        made.let_go.set()


def look(visitor: Visitor, path: str, words: str) -> Reply:
    """The page, once these words stand in it."""
    got: list[Reply] = []

    def there() -> bool:
        got.append(visitor.get(path))
        return words in got[-1].words

    wait_until(f"{path} says {words!r}", there, PATIENCE_S)
    return got[-1]


def test_it_begins_only_when_it_is_asked(resident: Visitor, patient: Patient) -> None:
    reply = resident.get("/doctor")
    assert reply.status == 200
    assert "Begin" in reply.words
    assert ALICE in reply.words, "each account can be looked at alone"
    assert reply.header("refresh") == ""
    assert patient.seen == []


def test_progress_and_then_what_it_found_the_worst_first(resident: Visitor, patient: Patient) -> None:
    resident.get("/doctor")
    resident.submit("/doctor")
    reply = look(resident, "/doctor", "Step 2 of 3: the second thing")
    assert reply.header("refresh") == str(doctoring.REFRESH_S)
    assert "First thing" in reply.words
    patient.let_go.set()
    reply = look(resident, "/doctor", "In short")
    assert reply.header("refresh") == ""
    assert reply.words.index("Third <b>thing</b>") < reply.words.index("First thing")
    assert "<b>thing" not in reply.text
    for words in ("1 failure. Begin with: Third", "Whose fault: the network.", "What to do: Mend it.", "as seen"):
        assert words in reply.words


def test_an_account_alone_and_only_once_at_a_time(resident: Visitor, patient: Patient) -> None:
    resident.get(OF_ALICE)
    resident.submit(OF_ALICE)
    look(resident, OF_ALICE, "Step 2 of 3")
    resident.submit(OF_ALICE)
    patient.let_go.set()
    look(resident, OF_ALICE, "In short")
    assert patient.seen == [ALICE]


def test_few_at_once(resident: Visitor, patient: Patient) -> None:
    resident.get("/doctor")
    for path in ("/doctor", OF_ALICE):
        assert resident.post(path).status == 303
    reply = resident.post("/doctor/desk%40contoso.com")
    assert reply.status == 429
    assert "Wait until one of them has ended" in reply.words


def test_an_account_that_is_not_there(resident: Visitor, patient: Patient) -> None:
    resident.get("/doctor")
    assert resident.get("/doctor/nobody%40contoso.com").status == 404
    assert resident.post("/doctor/nobody%40contoso.com").status == 404
    assert patient.seen == []


def test_the_real_doctor_beside_this_daemon(resident: Visitor) -> None:
    resident.get(OF_ALICE)
    resident.submit(OF_ALICE)
    reply = look(resident, OF_ALICE, "In short")
    assert "Nobody has signed in to Microsoft for alice@contoso.com" in reply.words
    assert "Run: mailferry sign-in alice@contoso.com" in reply.words


def test_what_ended_is_kept_for_a_bounded_number_of_logins(patient: Patient) -> None:
    patient.let_go.set()
    kept = doctoring.Examinations()
    for number in range(doctoring.MAX_KEPT + 5):
        assert kept.start(f"login{number}", None, {})
        wait_until("it ends", lambda number=number: kept.of(f"login{number}").done, PATIENCE_S)  # type: ignore[union-attr,misc]
    assert kept.of("login0") is None
    assert kept.of(f"login{doctoring.MAX_KEPT + 4}") is not None
