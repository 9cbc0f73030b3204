"""What can be done to apps, accounts and passwords: registry.py. On commands and page it is tested with them."""

from __future__ import annotations

import pytest

from proxy.accounts.passwords import verify_hash
from proxy.app.registry import Registry, by_field
from proxy.app.verbs.terminal import UsageError
from proxy.config import ConfigurationError, Value
from tests.app.home import ALICE, APPLICATION_ID, Home

APP: dict[str, Value] = {"application_id": APPLICATION_ID, "account_types": "organizations"}


@pytest.fixture
def registry(home: Home) -> Registry:
    registry = Registry(home.file, {})
    registry.add_app("work", APP)
    return registry


def test_an_account_gets_a_password_of_its_own(registry: Registry) -> None:
    made = registry.add_account(ALICE, "work", {"mailbox": "", "protocols": ["imap"], "sign_in": None})
    account = registry.read().accounts[0]
    assert (account.mailbox, account.protocols) == (ALICE, ("imap",))
    assert verify_hash(made.password.encode(), account.passwords[0].hash)
    assert made.password not in repr(made) + made.file.read_text()
    with pytest.raises(UsageError, match="there already"):
        registry.add_account(ALICE.upper(), "work", {})


def test_an_app_is_switched(registry: Registry) -> None:
    registry.switch_app("work", enabled=False)
    assert not registry.read().apps["work"].enabled
    registry.switch_app("work", enabled=True)
    assert registry.read().apps["work"].enabled


def test_a_further_password_comes_and_goes(registry: Registry) -> None:
    registry.add_account(ALICE, "work", {})
    made = registry.new_password(ALICE, "scanner", ["smtp"], ["10.0.0.0/8"])
    passwords = registry.read().accounts[0].passwords
    assert [local.name for local in passwords] == ["main", "scanner"]
    assert verify_hash(made.password.encode(), passwords[1].hash)
    registry.remove_password(ALICE, "scanner")
    assert len(registry.read().accounts[0].passwords) == 1


def test_who_wrote_it(registry: Registry, home: Home) -> None:
    home.write_main(f"apps:\n  own: {{application_id: {APPLICATION_ID}, account_types: common}}\n")
    assert registry.wrote("app", "work")
    assert not registry.wrote("app", "own")
    with pytest.raises(ConfigurationError, match="stands in a file that you wrote"):
        registry.change_app("own", {"enabled": False})


def test_errors_by_their_field(registry: Registry) -> None:
    wrong: dict[str, Value] = {
        "application_id": "x",
        "account_types": "y",
        "certificate": {"file": "none", "key": "none"},
    }
    with pytest.raises(ConfigurationError) as caught:
        registry.add_app("play", wrong)
    fields, others = by_field(caught.value, "apps.play.")
    assert fields.keys() == {"application_id", "account_types", "certificate"}
    assert fields["application_id"].startswith("'x' is not an application id; write")
    assert others == []
    fields, others = by_field(caught.value, "accounts[0].")
    assert (fields, len(others) >= 3) == ({}, True)
