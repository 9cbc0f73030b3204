"""The steps of the set-up, and which are done."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.app.page.journey import set_up
from tests.app.page.visitor import Served, Visitor

NAMES = ["register", "enter", "account", "sign_in", "connected", "program"]


def done(served: Served, *states: str) -> list[str]:
    rows: list[dict[str, Any]] = [{"login": f"{state}@x", "state": state} for state in states]
    return [step.name for step in set_up(served.home.config(), rows) if step.done]


def test_an_empty_house(visitor: Visitor, served: Served) -> None:
    page = visitor.get("/")
    assert [step.name for step in set_up(served.home.config(), [])] == NAMES
    assert done(served) == []
    assert page.text.count('aria-current="step"') == 1
    assert 'href="/register"' in page.text
    assert page.header("refresh") == ""


@pytest.mark.parametrize(
    ("states", "later"),
    [
        ([], []),
        (["sign_in_needed"], ["account"]),
        (["signing_in"], ["account"]),
        (["disabled"], ["account"]),
        (["connecting"], ["account", "sign_in"]),
        (["authentication_error", "sign_in_needed"], ["account", "sign_in"]),
        (["connecting", "connected"], ["account", "sign_in", "connected", "program"]),
    ],
)
def test_what_is_done(states: list[str], later: list[str], served_furnished: Served) -> None:
    assert done(served_furnished, *states) == ["register", "enter", *later]


def test_a_disabled_app_is_not_entered(resident: Visitor, served_furnished: Served) -> None:
    resident.submit("/apps/work/disable")
    resident.submit("/apps/robot/disable")
    assert done(served_furnished) == ["register"]


def test_each_step_leads_to_who_needs_it(served_furnished: Served) -> None:
    rows: list[dict[str, Any]] = [
        {"login": "a/b", "state": "sign_in_needed"},
        {"login": "c", "state": "connecting"},
        {"login": "d", "state": "connected"},
    ]
    to = {step.name: step.to for step in set_up(served_furnished.home.config(), rows)}
    assert to["sign_in"] == "/accounts/a%2Fb/sign-in"
    assert to["connected"] == "/doctor/d"
    assert to["program"] == "/accounts/d/program"
    to = {step.name: step.to for step in set_up(served_furnished.home.config(), rows[:2])}
    assert (to["connected"], to["program"]) == ("/doctor/c", "/accounts/c/program")


def test_the_guide(visitor: Visitor) -> None:
    assert "Register an app at Microsoft" in visitor.get("/register").words
