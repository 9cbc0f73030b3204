"""One mail host, one daemon and one person for all mail programs; and the table, once all of them were driven."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.clients.berth import Berth, Entry
from tests.clients.table import write_table
from tests.clients.tap import Tap
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.programs import Security
from tests.servers.mailhost import MailHost, Person


@pytest.fixture(scope="session")
def ferry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ferry]:
    """A running daemon, which goes on running."""
    with MailHost() as host, closing(Ferry(tmp_path_factory.mktemp("ferry"), host)) as ferry:
        ferry.app_add()
        ferry.serve()
        yield ferry
    write_table()


@pytest.fixture(scope="session")
def person(ferry: Ferry) -> Person:
    return ferry.ready_account()


@pytest.fixture
def berth(request: pytest.FixtureRequest, ferry: Ferry, person: Person, tmp_path: Path) -> Iterator[Berth]:
    """The one that `driven` asks for; the person's mailbox is empty."""
    entry, security = request.param
    assert isinstance(entry, Entry)
    assert isinstance(security, Security)
    ferry.host.dovecot.empty(person.upn)
    with Tap(entry.protocol, ferry.ports[entry.protocol]) as tap:
        yield Berth(entry, security, ferry, person, tap, tmp_path, ferry.passwords[person.upn])
