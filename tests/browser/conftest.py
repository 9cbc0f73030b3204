"""All that stands behind the page: the mail host and the sign-in service of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.mailhost import MailHost


@pytest.fixture(scope="session")
def mail_host() -> Iterator[MailHost]:
    with MailHost() as host:
        yield host
