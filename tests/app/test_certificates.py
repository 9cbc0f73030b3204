"""What listeners show, and the announcement when it is no longer what programs were told to trust."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from proxy.app.certificates import (
    ANNOUNCED_S,
    OURS,
    acknowledge,
    announcements,
    note_shown,
    presented,
    read_authority,
    uses_authority,
)
from proxy.network.certificates import read_certificate
from tests.app.home import Home
from tests.app.trusted import authorities, give

NOW_S = 1_790_000_000.0
A_DAY_S = 24 * 3600.0


@pytest.fixture
def shown(home: Home) -> Home:
    """A home whose first authority is known."""
    give(home, 0)
    assert note_shown(home.config(), NOW_S) == []
    return home


def own_certificate(home: Home, which: int, name: str = "ca") -> Path:
    """A certificate of the person's own, in place of the local authority's: one that signed itself, or one of a CA."""
    for part in (f"{name}.pem", f"{name}.key"):
        shutil.copy(authorities()[which] / part, home.folder / part)
        (home.folder / part).chmod(0o600)
    home.write_main(certificate=f", certificate: {{file: {name}.pem, key: {name}.key}}")
    return home.folder / f"{name}.pem"


def test_nothing_is_known_before_the_first_start(home: Home) -> None:
    assert read_authority(home.config()) is None
    assert announcements(home.config(), NOW_S) == []
    assert presented(home.config()) == []
    assert note_shown(home.config(), NOW_S) == []
    assert not (home.state_dir / "tls").exists()


def test_the_authority(shown: Home) -> None:
    authority = read_authority(shown.config())
    assert authority is not None
    assert authority.sha256 == read_certificate(authorities()[0] / "ca.pem").sha256
    assert authority.pem == (shown.state_dir / "tls" / "ca.pem").read_text()
    (each,) = presented(shown.config())
    assert (each.listener, each.ours) == ("imap localhost:1143", True)
    assert each.certificate.names == ("localhost", "127.0.0.1", "::1")


def test_the_first_one_and_the_same_again_are_no_change(shown: Home) -> None:
    assert note_shown(shown.config(), NOW_S + 1) == []
    assert announcements(shown.config(), NOW_S + 1) == []


def test_a_new_authority_is_announced_and_logged(shown: Home, caplog: pytest.LogCaptureFixture) -> None:
    give(shown, 1)
    with caplog.at_level(logging.WARNING, "mailferry"):
        (change,) = note_shown(shown.config(), NOW_S)
    assert change.what == OURS
    assert change.old == read_certificate(authorities()[0] / "ca.pem").sha256
    assert change.new == read_certificate(authorities()[1] / "ca.pem").sha256
    assert "changed on 2026-09-21" in str(change)
    assert [record.getMessage() for record in caplog.records] == ["a certificate changed"]
    assert announcements(shown.config(), NOW_S + 29 * A_DAY_S) == [change]


def test_it_is_announced_until_it_was_read(shown: Home) -> None:
    give(shown, 1)
    note_shown(shown.config(), NOW_S)
    acknowledge(shown.config())
    assert announcements(shown.config(), NOW_S) == []
    assert note_shown(shown.config(), NOW_S) == [], "it stays known"
    acknowledge(shown.config())


def test_it_is_announced_for_thirty_days(shown: Home) -> None:
    give(shown, 1)
    note_shown(shown.config(), NOW_S)
    assert announcements(shown.config(), NOW_S + ANNOUNCED_S - 1) != []
    assert announcements(shown.config(), NOW_S + ANNOUNCED_S) == []


def test_of_two_changes_the_latest_is_announced(shown: Home) -> None:
    give(shown, 1)
    note_shown(shown.config(), NOW_S)
    give(shown, 0)
    (change,) = note_shown(shown.config(), NOW_S + 1)
    assert announcements(shown.config(), NOW_S + 1) == [change]


def test_a_certificate_that_stands_for_itself_is_announced_by_its_listener(home: Home) -> None:
    own_certificate(home, 0)
    (home.state_dir / "tls").mkdir(parents=True)
    note_shown(home.config(), NOW_S)
    own_certificate(home, 1)
    (change,) = note_shown(home.config(), NOW_S)
    assert change.what == "imap localhost:1143"
    assert "The certificate of the imap localhost:1143 listener" in str(change)


def test_a_renewed_certificate_of_a_public_authority_is_nobodys_business(home: Home) -> None:
    own_certificate(home, 0, "server")
    (home.state_dir / "tls").mkdir(parents=True)
    note_shown(home.config(), NOW_S)
    own_certificate(home, 1, "server")
    assert note_shown(home.config(), NOW_S) == []
    assert not uses_authority(home.config())
    assert read_authority(home.config()) is None
    (each,) = presented(home.config())
    assert not each.ours


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "[]", "{", '{"trusted": 5}', '{"trusted": {}, "changes": {}}', '{"trusted": {}, "changes": [5, {}]}'),
        '{"trusted": {"authority": 5}}',
    ],
)
def test_a_damaged_memory_is_begun_anew(home: Home, damaged: str) -> None:
    give(home, 0)
    (home.state_dir / "tls" / "shown.json").write_text(damaged)
    assert announcements(home.config(), NOW_S) == []
    note_shown(home.config(), NOW_S)
    known = json.loads((home.state_dir / "tls" / "shown.json").read_text())
    assert set(known["trusted"]) == {OURS}


def test_a_memory_that_cannot_be_written_stops_nothing(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    give(home, 0)
    (home.state_dir / "tls" / "shown.json").mkdir()
    with caplog.at_level(logging.WARNING, "mailferry"):
        assert note_shown(home.config(), NOW_S) == []
    assert [record.getMessage() for record in caplog.records] == ["cannot note which certificates are shown"]


def test_the_memory_is_private(shown: Home) -> None:
    assert (shown.state_dir / "tls" / "shown.json").stat().st_mode & 0o777 == 0o600
