"""Watches end, whatever is asked, and a transcript keeps little until it is wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from proxy.log import Log
from proxy.network.watches import MAX_KEPT_LINES, MAX_LINE_CHARACTERS, MAX_WATCH_S, MAX_WATCHES, Transcript, Watches


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_watch_ends_by_itself() -> None:
    clock = Clock()
    watches = Watches(clock)
    assert watches.left_s() == {}
    assert not watches.on("alice")
    watches.begin(["Alice", "198.51.100.7"], 60)
    assert watches.any
    assert watches.on("ALICE")
    assert watches.on("198.51.100.7")
    assert not watches.on("bob")
    clock.now_s += 20
    assert watches.left_s() == {"alice": 40, "198.51.100.7": 40}
    clock.now_s += 40
    assert not watches.on("alice")
    assert not watches.any


def test_a_watch_is_ended() -> None:
    watches = Watches(Clock())
    watches.begin(["alice"], 60)
    watches.end(["Alice", "nobody"])
    assert not watches.any


def test_no_watch_is_long_and_few_are_many() -> None:
    watches = Watches(Clock())
    for number in range(MAX_WATCHES + 1):
        watches.begin([f"login-{number}"], 10 * MAX_WATCH_S)
    assert not watches.on("login-0")
    assert watches.on("login-1")
    assert set(watches.left_s().values()) == {MAX_WATCH_S}
    assert len(watches.left_s()) == MAX_WATCHES


@pytest.fixture
def quiet() -> Iterator[Log]:
    """A log as it is by default."""
    ours = logging.getLogger("mailferry")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield Log("session", session="1")
    ours.setLevel(before)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [getattr(record, "fields", {}) for record in caplog.records]


def test_what_was_kept_is_told_once_it_is_wanted(quiet: Log, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    transcript = Transcript("mail program", quiet, clock)
    transcript.told(b"* OK ready\r\n* more \xff\r\n")
    clock.now_s += 2
    transcript.heard("a LOGIN alice <secret>")
    transcript.use(quiet)
    assert lines(caplog) == []
    transcript.use(quiet.aloud(lambda: True))
    transcript.heard("b LOGOUT")
    assert [(each.get("told") or each.get("heard"), each["ago_s"]) for each in lines(caplog)] == [
        ("* OK ready", 2),
        ("* more \\xff", 2),
        ("a LOGIN alice <secret>", 0),
        ("b LOGOUT", None),
    ]
    assert {each["session"] for each in lines(caplog)} == {"1"}
    assert {each["leg"] for each in lines(caplog)} == {"mail program"}


def test_little_is_kept(quiet: Log, caplog: pytest.LogCaptureFixture) -> None:
    transcript = Transcript("mail program", quiet, Clock())
    for _ in range(10 * MAX_KEPT_LINES):
        transcript.heard("x" * 5_000)
    transcript.use(quiet.aloud(lambda: True))
    assert len(lines(caplog)) == MAX_KEPT_LINES
    assert max(len(str(each["heard"])) for each in lines(caplog)) == MAX_LINE_CHARACTERS
