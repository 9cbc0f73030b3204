"""What refreshes and the store tell the metrics (`tokens.py`, `store.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.accounts.store import StoreUnavailable, Superseded
from proxy.metrics import Metrics
from tests.accounts.fakes import HOUR_S, again, later
from tests.accounts.test_store import ALICE, Bench, fill
from tests.accounts.test_tokens import Office


def counted(metrics: Metrics, name: str, label: str) -> dict[str, float]:
    """Those that there were."""
    (family,) = [each for each in metrics.registry.collect() if each.name == f"mailferry_{name}"]
    return {each.labels[label]: each.value for each in family.samples if each.value}


@pytest.fixture
def expired() -> Office:
    office = Office()
    office.sign_in(1)
    office.clock.advance(HOUR_S)
    return office


def refreshes(office: Office) -> dict[str, float]:
    return counted(office.tokens._metrics, "refreshes", "outcome")


def test_refreshes_by_how_they_ended(expired: Office) -> None:
    expired.access()
    expired.access()
    expired.microsoft.answer(later())
    assert refreshes(expired) == {"failed": 1}, "one for both who asked"
    expired.clock.advance(HOUR_S)
    expired.access()
    expired.microsoft.answer(expired.granted(2))
    assert refreshes(expired) == {"failed": 1, "refreshed": 1}
    expired.clock.advance(HOUR_S)
    expired.access()
    expired.microsoft.answer(again())
    assert refreshes(expired) == {"failed": 1, "refreshed": 1, "refused": 1}


def test_a_refresh_that_comes_too_late(expired: Office) -> None:
    expired.access()
    expired.sign_in(3)
    expired.microsoft.answer(expired.granted(2))
    assert refreshes(expired) == {"late": 1}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "state").open()
    yield bench
    bench.close()


def store_errors(bench: Bench) -> dict[str, float]:
    return counted(bench.store._metrics, "store_errors", "access")


def test_writes_that_fail(bench: Bench) -> None:
    bench.save(ALICE, {"n": 1}, 0)
    with pytest.raises(Superseded):
        bench.save(ALICE, {}, 7)
    assert store_errors(bench) == {}, "a writer that came too late is no error"
    fill(bench)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            bench.save(ALICE, {"text": "x" * 10_000}, 1)
    assert store_errors(bench) == {"write": 2}


def test_reads_that_fail(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "state").open()
    bench.close()
    with pytest.raises(StoreUnavailable):
        bench.load(ALICE)
    with pytest.raises(StoreUnavailable):
        bench.names()
    assert store_errors(bench) == {"read": 2}
