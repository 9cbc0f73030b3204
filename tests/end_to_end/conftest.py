"""One mail host for all tests of this folder, and one daemon for each module that asks for `ferry`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.ferry import Ferry
from tests.servers.mailhost import MailHost


@pytest.fixture(scope="session")
def mail_host() -> Iterator[MailHost]:
    with MailHost() as host:
        yield host


@pytest.fixture(scope="module")
def ferry(mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ferry]:
    """A running daemon with an app; a test adds accounts of its own, and leaves the daemon running."""
    with closing(Ferry(tmp_path_factory.mktemp("ferry"), mail_host)) as ferry:
        ferry.app_add()
        ferry.serve()
        yield ferry


@pytest.fixture
def new_ferry(mail_host: MailHost, tmp_path: Path) -> Iterator[Ferry]:
    """A daemon of the test's own, with an app; not started yet."""
    with closing(Ferry(tmp_path, mail_host)) as ferry:
        ferry.app_add()
        yield ferry
