"""How the soak judges; the soak itself takes half an hour."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from tests.faults.soak import Sample, Tally, growth, judge, sample

MIB = 1024


def _tally(rss_mib: list[float], **more: object) -> Tally:
    samples = [Sample(1_000 + n, int(mib * MIB), 60, 9, n) for n, mib in enumerate(rss_mib)]
    return Tally(Counter(imap=5), samples=samples, **more)  # type: ignore[arg-type]


def _verdict(tally: Tally) -> int:
    return judge(tally, refreshes=1, accounts=1, minutes=30)


def test_growth_is_of_the_last_tenth_over_the_first() -> None:
    assert growth([100] * 10 + [150] * 80 + [110] * 10) == pytest.approx(0.1)


def test_flat_and_faultless_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert _verdict(_tally([80.0] * 50 + [81.0] * 50)) == 0
    assert "| RSS, MiB | 80.0 | 81.0 | 80.5 | 81.0 | +1.2 % |" in capsys.readouterr().out


def test_a_leak_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert _verdict(_tally([80 + n / 10 for n in range(100)])) == 1


@pytest.mark.parametrize("wrong", [{"failures": ["imap: no"]}, {"let_in": 1}])
def test_neither_is_a_failed_login_or_a_stranger_let_in(
    wrong: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _verdict(_tally([80.0] * 100, **wrong)) == 1


def test_a_sample_is_of_a_process() -> None:
    taken = sample(os.getpid(), time.monotonic(), 3)
    assert taken.rss_kib > MIB
    assert taken.fds >= 3
    assert taken.threads >= 1
    assert taken.sessions == 3
