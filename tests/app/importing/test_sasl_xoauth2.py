"""`sasl_xoauth2.py`: configuration, token files, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.importing.found import FoundApp, Sealed, Text, Verdict
from proxy.app.importing.sasl_xoauth2 import read, recognises, refers_to
from tests.app.importing.samples import CLIENT_ID, TOKEN, judged, text, the_account, token_file, unjudged, verdicts

ENDPOINT = "https://login.microsoftonline.com/consumers/oauth2/v2.0/token"
APP = FoundApp(CLIENT_ID, "consumers")
TOKENS = Path("/etc/tokens/alice")
PASSWD = Path("/etc/postfix/sasl_passwd")
MAP = "[smtp.office365.com]:587 alice@outlook.com:/etc/tokens/alice\n"


def configuration(**more: str) -> Text:
    values = {"client_id": CLIENT_ID, "client_secret": "", "token_endpoint": ENDPOINT, **more}
    return Text(Path("/etc/sasl-xoauth2.conf"), json.dumps(values, indent=2))


def test_the_password_map_says_whose_token_it_is() -> None:
    texts = [configuration(), Text(PASSWD, MAP), Text(TOKENS, token_file())]
    found = read(texts)
    account = the_account(found)
    assert (account.login, account.app, account.protocols) == ("alice@outlook.com", APP, ("smtp",))
    assert account.refresh_token == Sealed("clear", TOKEN)
    assert account.sealed == ()
    assert TOKEN not in repr(found)
    assert judged(found, "refresh_token").verdict is judged(found, "alice@outlook.com").verdict is Verdict.TAKEN
    assert account.line == judged(found, "refresh_token").line == 4
    for each in texts:
        assert unjudged(found, each, ("#",)) == []


@pytest.mark.parametrize(
    ("file", "more"),
    [("/etc/tokens/alice@outlook.com", {}), ("/alice@outlook.com.json", {}), ("/t", {"user": "alice@outlook.com"})],
)
def test_its_name_or_its_user_says_so_too(file: str, more: dict[str, str]) -> None:
    found = read([configuration(), Text(Path(file), token_file(**more))])
    assert the_account(found).login == "alice@outlook.com"


def test_nobodys_token_is_not_taken() -> None:
    found = read([configuration(), Text(TOKENS, token_file())])
    assert found.accounts == ()
    assert "sasl_passwd" in judged(found, "alice").text


def test_a_token_file_has_the_last_word() -> None:
    own = {"client_secret": "s3cret", "token_endpoint": ENDPOINT.replace("consumers", "contoso.com")}
    found = read([configuration(), Text(PASSWD, MAP), Text(TOKENS, token_file(**own))])
    assert the_account(found).app == FoundApp(CLIENT_ID, "contoso.com", client_secret="s3cret")
    assert "s3cret" not in repr(found)


def test_without_an_endpoint_it_is_googles() -> None:
    found = read([configuration(token_endpoint=""), Text(PASSWD, MAP), Text(TOKENS, token_file())])
    assert (found.accounts, found.apps) == ((), ())
    assert "Google" in judged(found, "sasl-xoauth2.conf").text


def test_two_tokens_of_one_person() -> None:
    found = read([configuration(), *(Text(Path(f"/{n}"), token_file(user="alice@outlook.com")) for n in (1, 2))])
    assert len(found.accounts) == 1
    assert judged(found, "2").verdict is Verdict.NOT_TAKEN


def test_the_configuration_alone_brings_the_app() -> None:
    found = read([configuration(proxy="http://proxy", log_full_trace_on_failure="yes", refresh_window="600", x="y")])
    assert (list(found.apps), found.accounts) == ([APP], ())
    told = verdicts(found)
    assert told["client_id"] is told["token_endpoint"] is Verdict.TAKEN
    assert told["client_secret"] is told["proxy"] is told["log_full_trace_on_failure"] is told["x"] is Verdict.NOT_TAKEN
    assert told["refresh_window"] is Verdict.OTHERWISE


def test_lines_of_the_password_map() -> None:
    lines = "# map\n[smtp.gmail.com]:587 bob@gmail.com:/etc/tokens/bob\n[mail.isp.example] bob:password\n" + MAP
    found = read([configuration(), Text(PASSWD, lines)])
    assert "Google" in judged(found, "bob@gmail.com").text
    assert "was not found" in judged(found, "alice@outlook.com").text
    assert judged(found, "line").line == 3
    assert refers_to(Text(PASSWD, lines)) == ["/etc/tokens/bob", "/etc/tokens/alice"]
    assert refers_to(configuration()) == []


def test_what_is_recognised() -> None:
    assert recognises(configuration())
    assert recognises(Text(TOKENS, token_file()))
    assert recognises(Text(PASSWD, MAP))
    assert not any(recognises(text(content)) for content in ("", "[]", "{}", '{"a": 1}', "bob:password", "[" * 100_000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
)
KEYS = st.sampled_from(["client_id", "client_secret", "token_endpoint", "refresh_token", "user", "proxy", "x"])
VALUES = st.sampled_from([CLIENT_ID, ENDPOINT, TOKEN, "a@b.c", "", "\u202e"]) | JSON


@given(
    st.lists(
        st.dictionaries(KEYS, VALUES).map(json.dumps) | st.sampled_from([MAP, "x y\n"]) | st.text(max_size=30),
        max_size=4,
    )
)
def test_any_files_are_read(contents: list[str]) -> None:
    texts = [Text(Path(f"/{number}"), content) for number, content in enumerate(contents)]
    for each in texts:
        recognises(each)
        refers_to(each)
    found = read(texts)
    for each in texts:
        assert unjudged(found, each, ("#",)) == []
