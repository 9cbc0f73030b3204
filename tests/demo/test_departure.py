"""A signal interrupts where it may, is kept where it may not, and is heard once."""

from __future__ import annotations

import signal

import pytest

from proxy.demo.departure import SIGNALS, Departure, Leaving


@pytest.mark.parametrize("by", SIGNALS)
def test_a_signal_is_heard(by: signal.Signals) -> None:
    with Departure() as departure, pytest.raises(Leaving), departure.heard():
        signal.raise_signal(by)


def test_outside_it_is_kept_until_it_may_be_heard() -> None:
    with Departure() as departure:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Leaving), departure.heard():
            pytest.fail("it was not heard at the door")


def test_what_must_not_be_interrupted_is_finished_first() -> None:
    done = []

    def make(departure: Departure) -> None:
        with departure.heard():
            with departure.postponed():
                signal.raise_signal(signal.SIGINT)
                done.append("made")
            done.append("gone on")

    with Departure() as departure, pytest.raises(Leaving):
        make(departure)
    assert done == ["made"]


def test_a_failure_while_postponed_is_not_hidden() -> None:
    def make(departure: Departure) -> None:
        with departure.heard(), departure.postponed():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("first")

    with Departure() as departure, pytest.raises(ValueError, match="first"):
        make(departure)


def test_a_second_signal_does_not_disturb_the_end() -> None:
    done = []

    def make(departure: Departure) -> None:
        with departure.heard():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                done.append("tidied")

    with Departure() as departure, pytest.raises(Leaving):
        make(departure)
    assert done == ["tidied"]


def test_the_old_handlers_come_back() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Departure():
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Departure() as departure, departure.heard():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
