"""What holds for all tests. In CI (`CI=true`) none is skipped: what is left out elsewhere fails there, and says why."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure() -> None:
    """Signals mean what they mean at a terminal, also under nohup or in the background: children inherit them."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _forbid_skipping((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _forbid_skipping((yield))


def _forbid_skipping(report: Report) -> Report:
    xfail_reason: str | None = getattr(report, "wasxfail", None)
    if os.environ.get("CI") == "true" and (report.skipped or xfail_reason is not None):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else f"xfail: {xfail_reason}"
        report.outcome = "failed"
        report.longrepr = f"In CI no test is skipped or expected to fail. {reason}"
        if xfail_reason is not None:
            del report.wasxfail
    return report
