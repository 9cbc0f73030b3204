"""Each fault once, in short: `tests/faults/run` injects them far more often, and prints the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.catalogue import FAULTS, Fault, table
from tests.faults.fleet import Host
from tests.faults.scene import Finding


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(host: Host, fault: Fault) -> None:
    finding = fault.inject(host, fault.short)
    assert finding.injected > 0
    assert finding.acknowledged > 0
    assert finding.wrong == ()


def test_the_table_says_what_was_lost() -> None:
    rows = table([Finding("a storm", 1_000, 7, 8, 9, (), "at sea"), Finding("a leak", 1, 2, 3, 4, ("lost: m1",))])
    assert rows.splitlines()[2:] == [
        "| a storm (at sea) | 1,000 | 7 | 8 | 9 | nothing |",
        "| a leak | 1 | 2 | 3 | 4 | **1** |",
    ]
