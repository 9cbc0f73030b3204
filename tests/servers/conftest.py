"""One mail host for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.mailhost import MailHost


@pytest.fixture(scope="session")
def mail_host() -> Iterator[MailHost]:
    with MailHost() as host:
        yield host
