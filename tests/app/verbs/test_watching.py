"""The verb `log`: what is asked of the daemon, and what a person is told (watching.py); the rest is end to end."""

from __future__ import annotations

import json

import pytest

from proxy.app.verbs.watching import duration_s
from proxy.network.watches import Watches
from tests.app.home import ALICE, Beside, Home

NOW_S = 1000.0


@pytest.fixture
def watches(home: Home, beside: Beside) -> Watches:
    """Beside a daemon that serves Alice."""
    home.add_app()
    home.add_account()
    watches = Watches(lambda: NOW_S)
    beside.desk.watches = watches
    return watches


def test_a_watch_from_its_begin_to_its_end(watches: Watches, home: Home) -> None:
    assert "Nobody is watched" in home.run("log").output
    told = home.run("log", ALICE.upper(), "--for", "90s").output
    assert f"{ALICE}: everything is logged for 2 more minutes" in told
    assert "journalctl -u mailferry" in told
    assert watches.on(ALICE)
    assert json.loads(home.run("log", "--json").output) == {"watched": [{"whom": ALICE, "left_s": 90.0}]}
    assert "Nobody is watched" in home.run("log", ALICE, "--stop").output
    assert not watches.any


def test_ten_minutes_are_the_default(watches: Watches, home: Home) -> None:
    home.run("log", ALICE)
    assert watches.left_s() == {ALICE: 600.0}


def test_an_address_is_watched_in_its_plain_form(watches: Watches, home: Home) -> None:
    assert "30 more seconds" in home.run("log", "2001:DB8:0::1", "--for", "30s").output
    assert watches.on("2001:db8::1")


def test_who_cannot_be_watched(watches: Watches, home: Home) -> None:
    assert "no account 'nobody'" in home.run("log", "nobody", exit_code=2).errors
    assert "Give a login or an address" in home.run("log", "--stop", exit_code=2).errors
    assert not watches.any


def test_an_office_without_sessions_watches_nobody(home: Home, beside: Beside) -> None:
    assert "it is the daemon that logs them" in home.run("log", exit_code=4).errors


def test_without_a_daemon_there_is_no_log(home: Home) -> None:
    assert "mailferry serve" in home.run("log", exit_code=4).errors


@pytest.mark.parametrize(("text", "meant_s"), [("90s", 90), ("10m", 600), (" 1H ", 3600), ("15", 900)])
def test_a_time_as_people_write_it(text: str, meant_s: float) -> None:
    assert duration_s(text) == meant_s


@pytest.mark.parametrize("text", ["", "0m", "61m", "2h", "-5m", "ten", "5d", "1.5h"])
def test_what_is_no_time(text: str, home: Home) -> None:
    assert "is not a time like 90s" in home.run("log", ALICE, f"--for={text}", exit_code=2).errors
