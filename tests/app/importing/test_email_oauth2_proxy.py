"""`email_oauth2_proxy.py`, `email_oauth2_proxy_values.py`: flows, catch-all domains, caches, a word for each line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.app.importing.email_oauth2_proxy import read, recognises
from proxy.app.importing.email_oauth2_proxy_values import ITERATIONS as OWN_ITERATIONS
from proxy.app.importing.email_oauth2_proxy_values import Values
from proxy.app.importing.found import Found, FoundApp, FoundListener, Text, Verdict
from proxy.app.importing.ini import read_ini
from tests.app.importing.samples import (
    CLIENT_ID,
    ITERATIONS,
    SALT,
    SCOPE,
    TENANT,
    account,
    judged,
    options,
    seal,
    server,
    text,
    the_account,
    tokens,
    unjudged,
    verdicts,
)

DELEGATED = FoundApp(CLIENT_ID, "organizations")
AT_TENANT = f"https://login.microsoftonline.com/{TENANT}"


def reading(*parts: str) -> Found:
    given = text("".join(parts))
    found = read([given])
    assert unjudged(found, given, ("#", ";")) == []
    return found


# --- flows


def test_the_authorization_code_flow() -> None:
    found = reading(account())
    assert the_account(found).login == "alice@contoso.com"
    assert the_account(found).app == DELEGATED
    assert the_account(found).refresh_token is None
    assert verdicts(found)["[alice@contoso.com]"] is Verdict.TAKEN
    assert verdicts(found)["token_url"] is Verdict.TAKEN
    assert verdicts(found)["oauth2_scope"] is Verdict.OTHERWISE


def test_a_secret_a_redirect_address_and_pkce() -> None:
    found = reading(
        account(client_secret="s3cret~value", redirect_uri="https://login.contoso.com/back", use_pkce="True")
    )
    app = the_account(found).app
    assert app == replace(DELEGATED, client_secret="s3cret~value", redirect_uri="https://login.contoso.com/back")
    assert "s3cret" not in repr(found)
    assert verdicts(found)["client_secret"] is verdicts(found)["redirect_uri"] is Verdict.TAKEN
    assert verdicts(found)["use_pkce"] is Verdict.OTHERWISE


@pytest.mark.parametrize(
    "address", ["urn:ietf:wg:oauth:2.0:oob", "http://192.168.1.5", "http://localhost:0", "https://["]
)
def test_a_redirect_address_that_entra_would_not_take(address: str) -> None:
    found = reading(account(redirect_uri=address))
    assert the_account(found).app == DELEGATED
    assert verdicts(found)["redirect_uri"] is Verdict.OTHERWISE


def test_the_device_flow() -> None:
    found = reading(
        account(oauth2_flow="device", permission_url="https://login.microsoftonline.com/common/oauth2/v2.0/devicecode")
    )
    assert the_account(found).app == DELEGATED
    assert "--device" in judged(found, "oauth2_flow").text
    with_secret = reading(account(oauth2_flow="device", client_secret="s3cret"))
    assert verdicts(with_secret)["[alice@contoso.com]"] is Verdict.OTHERWISE
    assert "--paste" in judged(with_secret, "[alice@contoso.com]").text


def test_client_credentials_with_a_secret() -> None:
    ccg = {
        "permission_url": "",
        "oauth2_flow": "client_credentials",
        "oauth2_scope": "https://outlook.office365.com/.default",
    }
    found = reading(account(authority=AT_TENANT, client_secret="s3cret", **ccg))
    assert the_account(found).app == FoundApp(CLIENT_ID, TENANT, flow="app_only", client_secret="s3cret")
    assert the_account(found).protocols == ()


def test_client_credentials_with_a_certificate() -> None:
    files = {"jwt_certificate_path": "/etc/ep/cert.pem", "jwt_key_path": "/etc/ep/key.pem"}
    found = reading(account(authority=AT_TENANT, permission_url="", oauth2_flow="client_credentials", **files))
    assert the_account(found).app == FoundApp(
        CLIENT_ID, TENANT, flow="app_only", certificate=("/etc/ep/cert.pem", "/etc/ep/key.pem")
    )
    assert verdicts(found)["jwt_key_path"] is Verdict.TAKEN


def test_a_certificate_beside_a_secret_is_not_taken() -> None:
    found = reading(account(client_secret="s3cret", jwt_certificate_path="/a", jwt_key_path="/b"))
    assert the_account(found).app == replace(DELEGATED, client_secret="s3cret")
    assert verdicts(found)["jwt_key_path"] is Verdict.NOT_TAKEN


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"authority": "https://login.microsoftonline.com/common", "client_secret": "s"}, "one organisation"),
        ({"authority": AT_TENANT}, "without a secret"),
    ],
)
def test_client_credentials_that_cannot_work(more: dict[str, str], reason: str) -> None:
    found = reading(account(permission_url="", oauth2_flow="client_credentials", **more))
    assert found.accounts == ()
    assert reason in judged(found, "[alice@contoso.com]").text


def test_a_sealed_secret() -> None:
    sealed = {**tokens(), "client_secret_encrypted": seal("s3cret")}
    found = reading(account(authority=AT_TENANT, permission_url="", oauth2_flow="client_credentials", **sealed))
    assert the_account(found).client_secret is not None
    assert verdicts(found)["client_secret_encrypted"] is Verdict.TAKEN
    beside = reading(account(client_secret="s3cret", **sealed))
    assert the_account(beside).client_secret is None
    assert verdicts(beside)["client_secret_encrypted"] is Verdict.NOT_TAKEN


def test_the_password_flow_becomes_a_sign_in() -> None:
    found = reading(account(permission_url="", oauth2_flow="password"))
    assert the_account(found).app == DELEGATED
    assert verdicts(found)["[alice@contoso.com]"] is Verdict.OTHERWISE
    assert verdicts(found)["oauth2_flow"] is Verdict.NOT_TAKEN
    assert "MFA" in judged(found, "oauth2_flow").text


def test_the_password_flow_of_china() -> None:
    found = reading(
        account(
            authority="https://login.partner.microsoftonline.cn/contoso.cn",
            permission_url="",
            oauth2_scope="",
            oauth2_resource="https://partner.outlook.cn",
            oauth2_flow="password",
        )
    )
    assert the_account(found).app == FoundApp(CLIENT_ID, "contoso.cn", "china")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"oauth2_flow": "service_account", "client_id": "file"}, "Google"),
        ({"token_url": "https://oauth2.googleapis.com/token"}, "Google"),
        ({"token_url": ""}, "token_url is missing"),
        ({"client_id": "*** your client id here ***"}, "placeholder"),
        ({"client_id": "1234"}, "no application id"),
        ({"oauth2_flow": "telepathy"}, "not known"),
    ],
)
def test_what_is_not_taken_says_why(more: dict[str, str], reason: str) -> None:
    found = reading(account(**more))
    assert found.accounts == ()
    (only,) = found.judged
    assert only.verdict is Verdict.NOT_TAKEN
    assert reason in only.text


def test_a_login_that_is_no_address_or_stands_twice() -> None:
    found = reading(account("a b@c"), account("ALICE@contoso.com"), account())
    assert [each.login for each in found.accounts] == ["ALICE@contoso.com"]
    assert verdicts(found)["[a b@c]"] is verdicts(found)["[alice@contoso.com]"] is Verdict.NOT_TAKEN


def test_a_scope_for_smtp_alone() -> None:
    found = reading(account(oauth2_scope="https://outlook.office.com/SMTP.Send offline_access"))
    assert the_account(found).protocols == ("smtp",)
    assert verdicts(found)["oauth2_scope"] is Verdict.TAKEN


# --- tokens


def test_sealed_tokens() -> None:
    found = reading(account(**tokens()))
    token = the_account(found).refresh_token
    assert token is not None
    assert (token.form, token.salt, token.iterations) == ("fernet", SALT, (ITERATIONS, *OWN_ITERATIONS))
    assert the_account(found).proof is not None
    for key in ("refresh_token", "token_salt", "token_iterations"):
        assert verdicts(found)[key] is Verdict.TAKEN
    for key in ("access_token", "access_token_expiry", "last_activity"):
        assert verdicts(found)[key] is Verdict.NOT_TAKEN
    assert token.text not in repr(found)


def test_without_a_number_of_iterations_both_of_its_own_are_tried() -> None:
    token = the_account(reading(account(**{**tokens(), "token_iterations": ""}))).refresh_token
    assert token is not None
    assert token.iterations == OWN_ITERATIONS


@pytest.mark.parametrize("salt", ["", "äöü", "a"])
def test_tokens_without_a_good_salt_cannot_be_opened(salt: str) -> None:
    assert the_account(reading(account(**{**tokens(), "token_salt": salt}))).refresh_token is None


def test_tokens_in_a_cache_file() -> None:
    cache = Text(
        Path("/home/alice/cache"),
        "\n".join(["[alice@contoso.com]", *(f"{key} = {value}" for key, value in tokens().items())]),
    )
    found = read([text(account()), cache])
    assert the_account(found).refresh_token is not None
    assert unjudged(found, cache, ("#",)) == []


# --- catch-all domains

CATCH_ALL = options(allow_catch_all_accounts="True")


def test_a_domain_serves_the_accounts_that_stand_there() -> None:
    bob = "[bob@contoso.com]\n" + "".join(f"{key} = {value}\n" for key, value in tokens().items())
    found = reading(account("@contoso.com", client_secret="s3cret"), bob, CATCH_ALL)
    assert the_account(found).login == "bob@contoso.com"
    assert the_account(found).app == replace(DELEGATED, client_secret="s3cret")
    assert list(found.apps) == [the_account(found).app]
    assert verdicts(found)["[@contoso.com]"] is Verdict.OTHERWISE


def test_everybodys_section_serves_too_and_the_nearest_counts() -> None:
    bare = "[bob@contoso.com]\noauth2_scope = \n\n[eve@example.org]\noauth2_scope = \n\n"
    everybody, domain = account("@", client_secret="all"), account("@contoso.com", client_secret="domain")
    found = reading(everybody, domain, bare, CATCH_ALL)
    assert [each.app.client_secret for each in found.accounts if each.app] == ["domain", "all"]


def test_a_domain_that_is_switched_off_is_not_taken() -> None:
    found = reading(account("@contoso.com"), options())
    assert (found.apps, found.accounts) == ((), ())
    assert "allow_catch_all_accounts" in judged(found, "[@contoso.com]").text


def test_a_cache_file_names_accounts_of_a_domain() -> None:
    cache = Text(
        Path("/cache"), "[bob@contoso.com]\n" + "".join(f"{key} = {value}\n" for key, value in tokens().items())
    )
    found = read([text(account("@contoso.com") + CATCH_ALL), cache])
    assert the_account(found).login == "bob@contoso.com"
    assert the_account(found).refresh_token is not None


# --- servers and options


def test_servers_become_listeners() -> None:
    found = reading(
        server(local_address="127.0.0.1"),
        server("POP", 1995),
        server("SMTP", 1587, "smtp-mail.outlook.com", server_starttls="True", local_starttls="True")
        + "local_certificate_path = /c\nlocal_key_path = /k\n",
        server("IMAP", 2993, "imap.gmail.com"),
        server("IMAP", 99_999),
        options(encrypt_client_secret_on_first_use="True", unknown="x"),
    )
    assert list(found.listeners) == [
        FoundListener("imap", "127.0.0.1", 1993),
        FoundListener("pop3", "localhost", 1995),
        FoundListener("smtp", "localhost", 1587, ("/c", "/k")),
    ]
    assert verdicts(found)["[IMAP-2993]"] is verdicts(found)["[IMAP-99999]"] is Verdict.NOT_TAKEN
    assert verdicts(found)["unknown"] is verdicts(found)["encrypt_client_secret_on_first_use"] is Verdict.NOT_TAKEN
    assert verdicts(found)["delete_account_token_on_password_error"] is Verdict.OTHERWISE


def test_a_listeners_certificate_comes_along() -> None:
    found = reading(
        server(local_certificate_path="/etc/cert.pem", local_key_path="/etc/key.pem", local_address="0.0.0.0")
    )
    assert list(found.listeners) == [FoundListener("imap", "localhost", 1993, ("/etc/cert.pem", "/etc/key.pem"))]
    assert verdicts(found)["local_address"] is Verdict.OTHERWISE


def test_the_department_of_defense_shows_at_its_server() -> None:
    found = reading(
        server(host="outlook-dod.office365.us"), account(authority=f"https://login.microsoftonline.us/{TENANT}")
    )
    assert the_account(found).app == FoundApp(CLIENT_ID, TENANT, "dod")


def test_default_values_stand_behind_all() -> None:
    found = reading(f"[DEFAULT]\nclient_id = {CLIENT_ID}\n\n", account(client_id=""))
    assert the_account(found).app == DELEGATED


def test_strays_are_told() -> None:
    found = reading("lost\n", account(), "nonsense\n", "[alice@contoso.com]\nx = y\n")
    assert [each.line for each in found.judged if each.subject == "line"] == [1, 9, 10, 11]


# --- recognition, and any input


@pytest.mark.parametrize("content", [options(), server(), account(), f"[a@b]\ntoken_salt = {SALT.hex()}\n"])
def test_it_is_recognised(content: str) -> None:
    assert recognises(text(content))


@pytest.mark.parametrize("content", ["", "[mail]\nhost = x\n", "davmail.imapPort=1143\n", "[a@b]\nx = y\n", "{}"])
def test_others_are_not(content: str) -> None:
    assert not recognises(text(content))


def test_values_of_a_section() -> None:
    ini = read_ini(account(oauth2_scope=SCOPE) + CATCH_ALL)
    values = Values(ini, [])
    assert values.catch_all
    assert values.inherited(ini.sections["alice@contoso.com"], "client_id") == CLIENT_ID


KEYS = ("token_url", "client_id", "oauth2_flow", "token_salt", "refresh_token", "redirect_uri", "local_address", "x")
VALUES = (
    "",
    CLIENT_ID,
    "device",
    "password",
    "https://login.microsoftonline.com/common/oauth2/v2.0/token",
    "***",
    "ä=",
    "a" * 99,
)
SECTIONS = ("IMAP-1993", "SMTP-0", "a@b.c", "@b.c", "@", "emailproxy", "DEFAULT", "notes", "A@B.c", "x@\u202e")
LINES = st.one_of(
    st.sampled_from(SECTIONS).map(lambda name: f"[{name}]"),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map(" = ".join),
    st.sampled_from(["  more", "# comment", "", "nonsense", "allow_catch_all_accounts = yes"]),
    st.text(max_size=20),
)


@example(["[IMAP-1993]\n[IMAP-1993]\n0=\n  more"])
@given(st.lists(st.lists(LINES, max_size=25).map("\n".join), min_size=1, max_size=3))
def test_any_files_are_read_and_every_line_is_judged(contents: list[str]) -> None:
    texts = [Text(Path(f"/{number}"), content) for number, content in enumerate(contents)]
    found = read(texts)
    for each in texts:
        assert unjudged(found, each, ("#", ";")) == []


@given(st.text())
def test_any_text_is_read(content: str) -> None:
    recognises(text(content))
    read([text(content)])
