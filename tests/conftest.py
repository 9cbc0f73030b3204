"""What holds for all tests. In CI (`CI=true`) none is skipped: what is left out elsewhere fails there, and says why.

`tests/run` has several workers (pytest-xdist). Tests of one file run on one worker, in their order, and those of some
folders altogether. The folders that take longest come first, so that no worker is left alone with them at the end.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).parent
TOGETHER = ("clients", "systemd")  # programs that share one daemon and fill one table; a machine installed once
FIRST = ("systemd", "clients", "end_to_end", "browser")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure() -> None:
    """Signals mean what they mean at a terminal, also under nohup or in the background: children inherit them."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command under test starts the log anew; the next test of this process finds it as it was."""
    loggers = [logging.getLogger(), logging.getLogger("mailferry")]
    before = [(logger, logger.level, list(logger.handlers), logger.disabled) for logger in loggers]
    yield
    for logger, level, handlers, disabled in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.disabled = disabled


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives workers whole files, or whole folders."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What is run on one worker together with this test."""
    file = nodeid.partition("::")[0]
    return _folder(file) if _folder(file) in TOGETHER else file


def _folder(file: str) -> str:
    """Below `tests`; empty for its own files."""
    parts = Path(file).parts
    below = parts[parts.index(ROOT.name) + 1 : -1] if ROOT.name in parts else parts[:-1]
    return below[0] if below else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    config.option.loadscopereorder = False  # the order is ours: see below
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The same in every worker, as xdist wants it."""
    ranks = {folder: rank for rank, folder in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(_folder(item.nodeid.partition("::")[0]), len(FIRST)))


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
