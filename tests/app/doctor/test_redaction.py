"""Texts without names and secrets: `redaction.py`."""

from __future__ import annotations

import base64
import secrets

import pytest

from proxy.app.doctor.redaction import LEFT_OUT, Redactor
from tests.app.home import ALICE, APPLICATION_ID, SECRET, Home


@pytest.fixture
def redactor(furnished: Home) -> Redactor:
    return Redactor(furnished.config(), {"HOME": "/home/alice", "HTTPS_PROXY": "http://me:Hush-Hush-7@box:3128"})


def test_an_address_is_the_same_one_everywhere(redactor: Redactor) -> None:
    first = redactor.text(f"{ALICE} and {ALICE.upper()}")
    left, _, right = first.partition(" and ")
    assert left == right
    assert left.startswith("address-")
    other = redactor.text("bob@contoso.com")
    assert other != left
    assert other.rpartition("@")[2] == left.rpartition("@")[2], "the same organisation stays the same"
    assert redactor.text("bob@fabrikam.com").rpartition("@")[2] != left.rpartition("@")[2]


@pytest.mark.parametrize(
    "text",
    [
        "alice%40contoso.com",
        "user=alice@contoso.com;",
        "<Alice@Contoso.com>",
        "mail.contoso.com:993",
        "carol+tag@mail.contoso.com",
        "o'brien@contoso.com",
    ],
)
def test_no_spelling_of_a_name_is_left(redactor: Redactor, text: str) -> None:
    said = redactor.text(text).casefold()
    assert "contoso" not in said
    assert "alice" not in said
    assert "carol" not in said
    assert "brien" not in said


def test_what_is_replaced_stays_as_it_is(redactor: Redactor) -> None:
    once = redactor.text(f"login={ALICE}")
    assert once == f"login={redactor.text(ALICE)}"
    assert redactor.text(once) == once


def test_a_login_that_nobody_has(redactor: Redactor) -> None:
    assert redactor.login("mallory") == LEFT_OUT
    assert redactor.login(ALICE) == redactor.text(ALICE)


def test_public_domains_stay(redactor: Redactor) -> None:
    assert redactor.text("outlook.office365.com:993") == "outlook.office365.com:993"
    assert redactor.text("login.microsoftonline.com") == "login.microsoftonline.com"
    assert redactor.text("someone@outlook.com").endswith("@outlook.com")


def test_ids_are_told_apart_and_not_shown(redactor: Redactor) -> None:
    other = "99999999-9999-4999-8999-999999999999"
    said = redactor.text(f"{APPLICATION_ID} {other} {APPLICATION_ID.upper()}").split()
    assert said[0] == said[2] != said[1]
    assert all(each.startswith("id-") for each in said)


def test_what_is_known_to_be_secret(redactor: Redactor, furnished: Home) -> None:
    hashed = furnished.config().accounts[0].passwords[0].hash
    said = redactor.text(f"x {SECRET} y {hashed} z {hashed.rpartition('$')[2]} Hush-Hush-7")
    assert SECRET not in said
    assert "scrypt" not in said
    assert "Hush" not in said
    assert said.count(LEFT_OUT) == 4


def test_what_looks_like_a_secret(redactor: Redactor) -> None:
    token = secrets.token_urlsafe(48)
    jwt = f"{token}.{token}.{token}"
    said = redactor.text(f"Bearer {jwt} and {base64.b64encode(token.encode()).decode()}")
    assert token[:10] not in said
    assert "Bearer" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("enter the code FQ7K9WXRT now", "enter the code (left out) now"),
        ("enter the code ABC-DEFG now", "enter the code (left out) now"),
        ("FQ7K9WXRT", "(left out)"),
        ("the code of a sign-in", "the code of a sign-in"),
        ("AADSTS700016: not found", "AADSTS700016: not found"),
        ("STARTTLS after XOAUTH2", "STARTTLS after XOAUTH2"),
    ],
)
def test_device_codes(redactor: Redactor, text: str, said: str) -> None:
    assert redactor.text(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "Set-CASMailbox -SmtpClientAuthenticationDisabled $false",
        "outlook.office365.com refuses the connection.",
        "its refresh_token_idle_expires_at is near",
        "/etc/mailferry/config.yaml, line 12, listeners",
        "/var/lib/mailferry/tokens.sqlite",
        "535 5.7.139 Authentication unsuccessful",
    ],
)
def test_what_a_helper_needs_stays(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) == text


def test_a_query_may_hold_a_code(redactor: Redactor) -> None:
    said = redactor.text("http://localhost:8080/?code=1.AbCdEf&state=x was pasted")
    assert said == f"http://localhost:8080/?{LEFT_OUT} was pasted"


def test_who_asks_a_proxy(redactor: Redactor) -> None:
    assert redactor.text("http://jo:pw@box:3128") == f"http://{LEFT_OUT}@box:3128"


def test_the_home_folder_and_what_a_person_wrote(redactor: Redactor) -> None:
    assert redactor.text("/home/alice/.config") == "~/.config"
    assert redactor.quoting("'hunter2 with words' is not an application id") == f"{LEFT_OUT} is not an application id"


def test_a_login_that_is_no_address(home: Home, furnished: Home) -> None:
    furnished.add_account("frontdesk", "--app", "work", "--mailbox", "front@contoso.com")
    redactor = Redactor(furnished.config(), {})
    assert "frontdesk" not in redactor.text("Sign-in of frontdesk: see frontdesk.")


def test_json_all_the_way_down(redactor: Redactor) -> None:
    said = redactor.plain({"a": [ALICE, {"b": SECRET}], "n": 5, "none": None, "t": (ALICE,)})
    assert ALICE not in str(said)
    assert SECRET not in str(said)
    assert (said["n"], said["none"]) == (5, None)
