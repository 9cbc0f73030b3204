"""Words for a person: words.py."""

from __future__ import annotations

import datetime

import pytest

from proxy.accounts.states import State
from proxy.app.page import words

NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2026-12-03T12:00:00Z", "in 3 days"),
        ("2026-12-01T12:00:00Z", "in 1 day"),
        ("2026-11-30T13:30:00Z", "in 1 hour"),
        ("2026-11-30T12:50:00Z", "in 50 minutes"),
        ("2026-11-30T12:00:30Z", "in less than a minute"),
        ("2026-11-30T10:00:00Z", "over since 2 hours"),
        ("2026-12-02", "in 1 day"),
    ],
)
def test_a_countdown(moment: str, said: str) -> None:
    assert words.countdown(moment, NOW) == said


def test_what_ends() -> None:
    row = {"token_expires_at": "2026-11-30T13:00:00Z", "client_secret_expires": None}
    assert words.expiries(row, NOW) == [("Access token, renewed by itself", "2026-11-30T13:00:00Z", "in 1 hour")]


def test_every_state_has_its_sentence() -> None:
    assert words.STATES.keys() == {state.value for state in State}


def test_who_must_act() -> None:
    assert words.must_act("administrator") == "the organisation's administrator"
    assert words.must_act(None) == ""
