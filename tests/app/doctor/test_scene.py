"""What the checks look at: `scene.py`."""

from __future__ import annotations

import pytest

from proxy.app.answers import DeskError
from proxy.app.doctor import scene as scenes
from proxy.app.doctor.scene import MAX_ACCOUNTS, daemon_only, sign_in_place
from tests.app.doctor.scenes import scene_of
from tests.app.home import ALICE, DESK, Beside, Home


def test_without_accounts_microsofts_own_hosts_are_looked_at(home: Home) -> None:
    scene = scene_of(home)
    assert [place.name for place in scene.places] == [
        "login.microsoftonline.com:443",
        *("outlook.office365.com:993", "outlook.office365.com:995", "smtp.office365.com:587"),
    ]
    assert all(place.microsoft for place in scene.places)


def test_each_host_in_use_once(furnished: Home) -> None:
    scene = scene_of(furnished)
    names = [place.name for place in scene.places]
    assert len(set(names)) == len(names)
    assert [place.use for place in scene.places] == ["sign-in", "imap", "pop3", "smtp"]
    assert not scene.places[0].microsoft
    assert scene.places[0].key == "apps.work.ca_file" or scene.places[0].key == "apps.robot.ca_file"


def test_only_what_the_named_account_uses(furnished: Home) -> None:
    furnished.add_account("reader@contoso.com", "--app", "work", "--protocols", "imap")
    scene = scene_of(furnished, "READER@contoso.com")
    assert [account.name for account in scene.accounts] == ["reader@contoso.com"]
    assert [app.name for app in scene.apps] == ["work"]
    assert [place.use for place in scene.places] == ["sign-in", "imap"]


def test_nobody_of_that_name(furnished: Home) -> None:
    scene = scene_of(furnished, "nobody@contoso.com")
    assert list(scene.accounts) == []
    assert list(scene.apps) == []


def test_many_accounts_are_bounded(furnished: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "MAX_ACCOUNTS", 1)
    assert MAX_ACCOUNTS > 1
    assert len(scene_of(furnished).accounts) == 1


def test_the_sign_in_services_port(furnished: Home) -> None:
    app = furnished.config().apps["work"]
    place = sign_in_place(app)
    assert place.name == app.authority.removeprefix("https://").partition("/")[0]
    assert place.ca_file == app.ca_file


def test_a_broken_configuration_is_understood_as_far_as_can_be(furnished: Home) -> None:
    furnished.file.write_text(furnished.file.read_text() + "typo: 1\nlisteners: 5\n")
    scene = scene_of(furnished)
    assert scene.broken
    assert any("typo" in fault.key or "typo" in fault.problem for fault in scene.faults)
    assert {account.name for account in scene.accounts} == {ALICE, DESK}
    assert scene.config.state_dir == furnished.state_dir
    with pytest.raises(DeskError, match="No daemon runs"):
        scene.ask("accounts")


def test_yaml_that_is_none_at_all(home: Home) -> None:
    home.file.write_text("{{{\n")
    scene = scene_of(home)
    assert scene.broken
    assert scene.places


def test_a_daemon_beside_it_says_who_it_is_and_what_it_sees(beside_furnished: Beside, furnished: Home) -> None:
    scene = scene_of(furnished, environ={"HOME": "/nowhere"})
    assert scene.running
    assert scene.about is not None
    assert scene.about["descriptors"]["limit"] > 0
    assert scene.environ.get("HOME") != "/nowhere", "the environment is the daemon's"
    assert daemon_only(furnished.config())("accounts")["accounts"]


def test_no_daemon(furnished: Home) -> None:
    scene = scene_of(furnished, environ={"HOME": "/nowhere"})
    assert not scene.running
    assert scene.environ == {"HOME": "/nowhere"}
    with pytest.raises(DeskError):
        daemon_only(furnished.config())("accounts")
