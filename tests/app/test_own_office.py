"""A command's own office: it holds the state folder for its time; whatever goes wrong has words and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from unittest import mock

import pytest
import twisted.internet

from proxy.accounts.keys import KeyUnusable
from proxy.accounts.sealed import StoreDamaged
from proxy.accounts.store import StateFolderHeld, lock_state_folder
from proxy.app.answers import DeskError
from proxy.app.desk import Desk
from proxy.app.office import Office
from proxy.app.own_office import OwnOffice
from proxy.login import Fault, LoginRefused, Refusal
from tests.app.home import Home, new_reactor

HELD = "works in the state folder; wait or stop it."


@pytest.fixture(autouse=True)
def _reactor() -> Iterator[None]:
    with new_reactor() as reactor, mock.patch.object(twisted.internet, "reactor", reactor, create=True):
        yield


def test_it_answers_and_gives_the_state_folder_back(home: Home) -> None:
    with closing(OwnOffice(home.config)) as own:
        assert own.ask("accounts", {}) == {"accounts": []}
        with pytest.raises(StateFolderHeld):
            lock_state_folder(home.state_dir)
    lock_state_folder(home.state_dir).release()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DeskError("Unknown.", 2), 2, "Unknown."),
        (LoginRefused(Refusal.TRY_LATER, "Later.", fault=Fault.NETWORK), 1, "Later."),
        (LoginRefused(Refusal.SIGN_IN_NEEDED, "Sign in.", fault=Fault.CLIENT), 3, "Sign in."),
        (StoreDamaged("Damaged."), 1, "Damaged."),
        (KeyUnusable("No key."), 1, "No key."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_desk_cannot_do(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Desk, "ask", fail)
    with closing(OwnOffice(home.config)) as own, pytest.raises(DeskError) as caught:
        own.ask("accounts", {})
    assert (caught.value.exit_code, caught.value.text) == (code, said)


@pytest.mark.parametrize(("pid", "who"), [(17, "Another mailferry (process 17)"), (None, "Another mailferry")])
def test_a_state_folder_that_is_held(pid: int | None, who: str, monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    monkeypatch.setattr(Office, "__init__", mock.Mock(side_effect=StateFolderHeld(pid)))
    with pytest.raises(DeskError) as caught:
        OwnOffice(home.config)
    assert (caught.value.exit_code, caught.value.text) == (5, f"{who} {HELD}")


def test_a_key_that_is_none(home: Home) -> None:
    home.state_dir.mkdir(mode=0o700)
    key = home.state_dir / "mailferry.key"
    key.write_text("nonsense\n")
    key.chmod(0o600)
    with pytest.raises(DeskError, match="does not hold a key"):
        OwnOffice(home.config)
    lock_state_folder(home.state_dir).release()
