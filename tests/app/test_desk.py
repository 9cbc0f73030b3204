"""What can be asked of an office: every verb, and what is asked wrongly. `signing_in.py`'s tests ask it too."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, gatherResults

from proxy.accounts.store import StoreError, StoreUnavailable
from proxy.app import desk as desk_module
from proxy.app.answers import DeskError
from proxy.app.desk import Desk
from proxy.demo import browser
from proxy.demo.identity import IdentityProvider
from proxy.login import LoginRefused, Refusal
from tests.app.home import ALICE, APPLICATION_ID, DESK, Beside, Home, Turning
from tests.app.importing.granting import granted_elsewhere

BACK = "http://localhost:51234"


class Asking:
    """The desk, asked from the test's thread."""

    def __init__(self, beside: Beside) -> None:
        self.beside = beside

    def __call__(self, verb: str, **arguments: Any) -> Any:
        return self.beside.turning.wait(lambda: self.beside.desk.ask(verb, arguments))


@pytest.fixture
def ask(beside_furnished: Beside) -> Asking:
    return Asking(beside_furnished)


def sign_in(ask: Asking, identity: IdentityProvider) -> None:
    begun = ask("begin_code", login=ALICE, redirect_uri=BACK)
    fields = browser.sign_in(begun["address"], identity.ca_file).fields
    assert ask("finish_code", id=begun["id"], query=fields) == {"signed_in": ALICE}


def test_accounts(ask: Asking) -> None:
    alice, desk = ask("accounts")["accounts"]
    assert alice["since"].endswith("Z")
    expected = {
        "login": ALICE,
        "logins": [ALICE],
        "mailbox": ALICE,
        "sign_in": ALICE,
        "app": "work",
        "app_only": False,
        "protocols": ["imap", "pop3", "smtp"],
        "passwords": ["main"],
        "state": "sign_in_needed",
        "last_success": None,
        "last_error": None,
        "fault": None,
    }
    assert expected.items() <= alice.items()
    assert {"login": DESK, "app": "robot", "app_only": True, "state": "connecting"}.items() <= desk.items()


def test_another_programs_token(ask: Asking, identity: IdentityProvider) -> None:
    token = granted_elsewhere(identity, APPLICATION_ID)
    assert ask("adopt_refresh_token", login=ALICE, refresh_token=token) == {"signed_in": ALICE}
    assert ask("accounts")["accounts"][0]["state"] == "connecting"
    with pytest.raises(DeskError) as error:
        ask("adopt_refresh_token", login=ALICE, refresh_token="1.nonsense")
    assert "nonsense" not in error.value.text


def test_another_programs_token_of_another_person(ask: Asking, identity: IdentityProvider) -> None:
    identity.add_person("bob@contoso.com")
    identity.sign_in_as("bob@contoso.com")
    token = granted_elsewhere(identity, APPLICATION_ID, "openid profile offline_access")
    assert ask("adopt_refresh_token", login=ALICE, refresh_token=token) == {"belongs_to": "bob@contoso.com"}
    assert ask("accounts")["accounts"][0]["state"] == "sign_in_needed"


def test_a_sign_in_by_code(ask: Asking, identity: IdentityProvider) -> None:
    sign_in(ask, identity)
    alice, _ = ask("accounts")["accounts"]
    assert alice["state"] == "connecting"
    assert alice["token_expires_at"] is not None


def test_a_code_is_good_for_one_use_and_one_sign_in(ask: Asking, identity: IdentityProvider) -> None:
    begun = ask("begin_code", login=ALICE, redirect_uri=BACK)
    fields = browser.sign_in(begun["address"], identity.ca_file).fields
    with pytest.raises(DeskError, match="not open"):
        ask("finish_code", id="another", query=fields)
    ask("finish_code", id=begun["id"], query=fields)
    with pytest.raises(DeskError, match="not open") as caught:
        ask("finish_code", id=begun["id"], query=fields)
    assert caught.value.exit_code == 1


def test_a_sign_in_by_device(ask: Asking, identity: IdentityProvider) -> None:
    begun = ask("begin_device", login=ALICE)
    assert re.fullmatch(r"\S+", begun["code"])
    assert begun["address"] == f"{identity.base}/devicelogin"
    identity.approve_device(begun["code"], ALICE)
    assert ask("await_device", id=begun["id"]) == {"signed_in": ALICE}
    with pytest.raises(DeskError, match="This sign-in is over"):
        ask("await_device", id=begun["id"])


def test_two_commands_share_one_sign_in_by_device(ask: Asking, identity: IdentityProvider) -> None:
    begun = ask("begin_device", login=ALICE)
    assert ask("begin_device", login=ALICE) == begun
    desk = ask.beside.desk

    async def both() -> list[Any]:
        waiting = [Deferred.fromCoroutine(desk.ask("await_device", {"id": begun["id"]})) for _ in range(2)]
        identity.approve_device(begun["code"], ALICE)
        return list(await gatherResults(waiting))

    assert ask.beside.turning.wait(both) == [{"signed_in": ALICE}] * 2


def test_looking_at_a_device_does_not_wait(ask: Asking, identity: IdentityProvider) -> None:
    begun = ask("begin_device", login=ALICE)
    looked = ask("look_at_device", id=begun["id"])
    assert looked == {"signed_in": None, **{key: begun[key] for key in ("code", "address", "expires_at_s")}}
    identity.approve_device(begun["code"], ALICE)
    ask.beside.turning.call(ask.beside.desk._devices[begun["id"]].result)
    assert ask("look_at_device", id=begun["id"]) == {"signed_in": ALICE}
    with pytest.raises(DeskError, match="This sign-in is over"):
        ask("look_at_device", id=begun["id"])


def test_devices_that_nobody_asks_for_are_forgotten(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "MAX_DEVICES", 1)
    ask.beside.desk._devices["old"] = cast("Any", None)
    begun = ask("begin_device", login=ALICE)
    assert ask("begin_device", login=ALICE) == begun
    assert ask.beside.desk._devices.keys() == {begun["id"]}


def test_a_link_to_the_page(ask: Asking) -> None:
    with pytest.raises(DeskError, match="The page is off"):
        ask("invite")
    ask.beside.desk.page_link = lambda: "http://localhost:8143/open/x"
    assert ask("invite") == {"address": "http://localhost:8143/open/x"}


def test_whether_the_store_answers(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("look_at_store") == {}
    monkeypatch.setattr(ask.beside.office._store, "load", lambda name: fail(StoreUnavailable("The disk is full.")))
    with pytest.raises(StoreError):
        ask("look_at_store")


def test_an_unknown_device(ask: Asking) -> None:
    with pytest.raises(DeskError, match="Start it again"):
        ask("await_device", id="unknown")


def test_an_app_asks_for_itself(ask: Asking) -> None:
    assert ask("check_app_only", login=DESK.upper()) == {"signed_in": "robot"}


def test_where_a_person_must_sign_in_no_app_asks(ask: Asking) -> None:
    with pytest.raises(LoginRefused) as caught:
        ask("check_app_only", login=ALICE)
    assert caught.value.refusal is Refusal.SIGN_IN_NEEDED


@pytest.mark.parametrize("verb", ["begin_code", "begin_device"])
def test_where_an_app_signs_in_no_person_can(verb: str, ask: Asking) -> None:
    more = {"redirect_uri": BACK} if verb == "begin_code" else {}
    with pytest.raises(DeskError, match="signs in by itself"):
        ask(verb, login=DESK, **more)


def test_signing_out(ask: Asking, identity: IdentityProvider) -> None:
    sign_in(ask, identity)
    assert ask("sign_out", login=ALICE.upper()) == {"signed_out": ALICE}
    assert ask("accounts")["accounts"][0]["state"] == "sign_in_needed"


def test_signing_out_while_the_store_is_in_trouble(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask.beside.office._store, "load", lambda name: fail(StoreUnavailable("The disk is full.")))
    with pytest.raises(StoreError, match="disk is full"):
        ask("sign_out", login=ALICE)


def test_reload(ask: Asking) -> None:
    assert ask("reload") == {"warnings": ["listeners changed"]}
    assert ask.beside.reloads == 1


@pytest.mark.parametrize("verb", ["", "nonsense", "_account", "ask", "__init__"])
def test_an_unknown_verb(verb: str, ask: Asking) -> None:
    with pytest.raises(DeskError, match="does not know the request") as caught:
        ask(verb)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("sign_out", {}),
        ("sign_out", {"login": ALICE, "more": 1}),
        ("accounts", {"login": ALICE}),
        ("begin_code", {"login": ALICE}),
    ],
)
def test_malformed_arguments(verb: str, arguments: dict[str, Any], ask: Asking) -> None:
    with pytest.raises(DeskError, match="is malformed") as caught:
        ask(verb, **arguments)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("verb", ["begin_device", "check_app_only", "sign_out"])
def test_an_account_that_is_not_there(verb: str, ask: Asking) -> None:
    with pytest.raises(DeskError, match=r"There is no account 'x@contoso\.com'") as caught:
        ask(verb, login="x@contoso.com")
    assert caught.value.exit_code == 2


def test_a_mistake_of_our_own_is_not_taken_for_a_malformed_request(beside: Beside) -> None:
    async def mistaken() -> list[str]:
        raise TypeError("ours")

    desk = Desk(beside.office, mistaken)
    with pytest.raises(TypeError, match="ours"):
        beside.turning.wait(lambda: desk.ask("reload", {}))


def test_the_office_ends_a_sign_in_that_somebody_waits_for(furnished: Home, turning_reactor: Turning) -> None:
    waiting: list[Deferred[Any]] = []
    with closing(Beside(furnished, turning_reactor)) as beside:
        begun = Asking(beside)("begin_device", login=ALICE)

        def wait() -> None:
            waiting.append(Deferred.fromCoroutine(beside.desk.ask("await_device", {"id": begun["id"]})))

        turning_reactor.call(wait)

    async def ended() -> Any:
        return await waiting[0]

    with pytest.raises(DeskError, match="given up"):
        turning_reactor.wait(ended)
