"""One mail host and one daemon for all mail programs; and the table, once all of them were driven."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.clients.berth import Berth, Entry
from tests.clients.table import write_table
from tests.clients.tap import Tap
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.programs import Security
from tests.servers.child import free_port
from tests.servers.mailhost import MailHost, Person


class FerryWithTls(Ferry):
    """It also listens with TLS at once on ports of their own.

    An `auto` listener waits for a TLS program's first octets for a moment only: Java, and isync on a busy machine, are
    slower, and come through at their second attempt.
    """

    def __init__(self, folder: Path, host: MailHost) -> None:
        self.tls_ports = {name: free_port() for name in ("imap", "pop3", "smtp")}
        super().__init__(folder, host)

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        listeners = (
            f"  - {{protocol: {name}, address: localhost, port: {port}, tls: implicit}}\n"
            for name, port in self.tls_ports.items()
        )
        return super().configuration(upstreams).replace("upstreams:\n", "".join((*listeners, "upstreams:\n")))

    def port(self, protocol: str, security: Security) -> int:
        return (self.tls_ports if security is Security.TLS else self.ports)[protocol]


@pytest.fixture(scope="session")
def ferry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FerryWithTls]:
    """A running daemon, which goes on running."""
    with MailHost() as host, closing(FerryWithTls(tmp_path_factory.mktemp("ferry"), host)) as ferry:
        ferry.app_add()
        ferry.serve()
        yield ferry
    write_table()


@pytest.fixture(scope="module")
def person(ferry: FerryWithTls) -> Person:
    """One for each module: an account may send 30 messages a minute."""
    return ferry.ready_account()


@pytest.fixture
def berth(request: pytest.FixtureRequest, ferry: FerryWithTls, person: Person, tmp_path: Path) -> Iterator[Berth]:
    """The one that `driven` asks for; the person's mailbox is empty."""
    entry, security = request.param
    assert isinstance(entry, Entry)
    assert isinstance(security, Security)
    ferry.host.dovecot.empty(person.upn)
    with Tap(entry.protocol, ferry.port(entry.protocol, security)) as tap:
        yield Berth(entry, security, ferry, person, tap, tmp_path, ferry.passwords[person.upn])
