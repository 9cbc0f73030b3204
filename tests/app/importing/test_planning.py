"""`planning.py` (and the values of `found.py`): which apps and accounts are written, under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.app.importing.email_oauth2_proxy import read
from proxy.app.importing.found import Found, FoundAccount, FoundApp, FoundListener, Sealed, Verdict
from proxy.app.importing.planning import Opened, Plan, foresee, kept_password, listener_lines, open_account, plan
from proxy.config import Config
from proxy.config.read import read as read_config
from tests.app.importing.samples import (
    CLIENT_ID,
    PASSWORD,
    TENANT,
    TOKEN,
    account,
    options,
    seal,
    text,
    the_account,
    tokens,
)

ALICE = "alice@contoso.com"
HASH = "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
KNOWN = (
    f"apps:\n  work: {{application_id: {CLIENT_ID}, account_types: organizations}}\n"
    f"accounts:\n  - {{login: {ALICE}, app: work, password: '{HASH}'}}\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path, "")


def configured(folder: Path, more: str) -> Config:
    file = folder / "config.yaml"
    file.write_text(f"state_dir: {folder}/state\n{more}")
    file.chmod(0o600)
    return read_config(file, {}).config


def found_in(*parts: str) -> Found:
    return read([text("".join(parts))])


def told(planned: Plan) -> list[tuple[str, str, str]]:
    return [(one.kind, one.name, one.text) for one in foresee(planned)]


# --- passwords


def test_the_right_password_opens_an_account() -> None:
    found = the_account(found_in(account(**tokens())))
    assert open_account(found, PASSWORD) == Opened(PASSWORD, TOKEN)
    assert open_account(found, "wrong") is None
    assert TOKEN not in repr(open_account(found, PASSWORD))
    assert PASSWORD not in repr(open_account(found, PASSWORD))


def test_an_access_token_proves_a_password_where_nothing_else_does() -> None:
    found = the_account(found_in(account(**{**tokens(), "refresh_token": ""})))
    assert open_account(found, PASSWORD) == Opened(PASSWORD)
    assert open_account(found, "wrong") is None


def test_what_is_not_sealed_needs_no_password() -> None:
    found = FoundAccount(Path("/f"), 1, ALICE, None, (), Sealed("clear", TOKEN))
    assert open_account(found, "") == Opened("", TOKEN)


def test_only_a_password_that_can_be_typed_is_kept(config: Config) -> None:
    found = [found_in(account(**tokens()))]
    for password, kept in (("Pässword ~", True), ("tab\there", False), ("", False)):
        (planned,) = plan(found, config, {ALICE: Opened(password, TOKEN)}).accounts
        assert bool(kept_password(planned)) is kept


# --- apps


def test_accounts_with_the_same_settings_share_an_app(config: Config) -> None:
    found = found_in(account(), account("bob@contoso.com"), account("eve@contoso.com", client_secret="s3cret"))
    planned = plan([found], config, {})
    assert [(app.name, app.keys) for app in planned.apps] == [
        ("imported", {"application_id": CLIENT_ID, "account_types": "organizations"}),
        ("imported-2", {"application_id": CLIENT_ID, "account_types": "organizations", "client_secret": "s3cret"}),
    ]
    assert [(one.login, one.app) for one in planned.accounts] == [
        (ALICE, "imported"),
        ("bob@contoso.com", "imported"),
        ("eve@contoso.com", "imported-2"),
    ]
    assert "s3cret" not in repr(planned)


def test_every_key_of_an_app(config: Config) -> None:
    app = FoundApp(
        CLIENT_ID,
        TENANT,
        "china",
        flow="app_only",
        redirect_uri="https://login.contoso.cn",
        certificate=("/cert.pem", "/key.pem"),
    )
    found = Found("a program", (), [app], [FoundAccount(Path("/f"), 1, ALICE, app, ("imap", "smtp"))])
    planned = plan([found], config, {})
    assert planned.apps[0].keys == {
        "application_id": CLIENT_ID,
        "account_types": TENANT,
        "cloud": "china",
        "flow": "app_only",
        "redirect_uri": "https://login.contoso.cn",
        "certificate": {"file": "/cert.pem", "key": "/key.pem"},
    }
    assert planned.accounts[0].keys == {"login": ALICE, "app": "imported", "protocols": ["imap", "smtp"]}
    assert planned.accounts[0].app_only


def test_a_private_sign_in_service_comes_with_its_authority(config: Config) -> None:
    found = found_in(account(authority="https://login.example.net:8443/practice"))
    (app,) = plan([found], config, {}, ca_file=Path("/ca.pem")).apps
    assert app.keys == {
        "application_id": CLIENT_ID,
        "authority": "https://login.example.net:8443/practice",
        "ca_file": "/ca.pem",
    }


def test_an_app_of_a_domain_without_accounts(config: Config) -> None:
    planned = plan([found_in(account("@contoso.com"), options(allow_catch_all_accounts="1"))], config, {})
    assert [app.name for app in planned.apps] == ["imported"]
    assert planned.accounts == ()


def test_a_sealed_secret_needs_its_password(config: Config) -> None:
    sealed = {"client_secret_encrypted": seal("s3cret"), "token_salt": "c2l4dGVlbiBvY3RldHMhIQ=="}
    at = {"authority": f"https://login.microsoftonline.com/{TENANT}", "permission_url": "", **sealed}
    found = found_in(account(oauth2_flow="client_credentials", **at))
    (refused,) = plan([found], config, {}).refused
    assert "sealed" in refused.text
    opened = open_account(the_account(found), "wrong"), Opened(PASSWORD, "", "s3cret")
    assert opened[0] is None
    (app,) = plan([found], config, {ALICE: opened[1]}).apps
    assert app.keys["client_secret"] == "s3cret"


def test_an_account_without_an_app_waits_for_one(tmp_path: Path) -> None:
    config = configured(tmp_path, KNOWN)
    found = Found("a program", (), (), [FoundAccount(Path("/f"), 1, "bob@contoso.com", None)])
    (refused,) = plan([found], config, {}).refused
    assert "--app NAME" in refused.text
    (planned,) = plan([found], config, {}, app="work").accounts
    assert planned.app == "work"


# --- what is there already


def test_what_is_there_stays(tmp_path: Path) -> None:
    config = configured(tmp_path, KNOWN)
    planned = plan([found_in(account(ALICE.upper()), account("bob@contoso.com"))], config, {})
    assert told(planned) == [
        ("app", "work", "is there already"),  # bob's
        ("account", ALICE.upper(), "is there already"),
        ("account", "bob@contoso.com", "would be written, with a new local password"),
        ("token", "bob@contoso.com", "would need a sign-in: no token was opened"),
    ]


def test_an_app_for_others_is_another_app(tmp_path: Path) -> None:
    config = configured(tmp_path, KNOWN.replace("  work", "  imported").replace("app: work", "app: imported"))
    (app,) = plan(
        [found_in(account("b@c.d", authority=f"https://login.microsoftonline.com/{TENANT}"))], config, {}
    ).apps
    assert (app.name, app.is_there) == ("imported-2", False)


def test_an_account_of_two_programs_is_planned_once(config: Config) -> None:
    found = found_in(account())
    assert len(plan([found, found], config, {}).accounts) == 1


def test_what_would_become_of_an_opened_token(config: Config) -> None:
    planned = plan([found_in(account(**tokens()))], config, {ALICE: Opened(PASSWORD, TOKEN)})
    assert [one.verdict for one in foresee(planned)] == [Verdict.TAKEN] * 3
    assert "the password that it has" in told(planned)[1][2]


# --- listeners

LISTENERS = [
    FoundListener("imap", "localhost", 1143),
    FoundListener("imap", "::1", 1993, ("/etc/it's.pem", "/etc/key.pem")),
]
FOUND = Found("a program", listeners=LISTENERS)


def test_lines_that_take_the_place_of_the_defaults_load(config: Config, tmp_path: Path) -> None:
    for name in ("it's.pem", "key.pem"):
        (tmp_path / name).touch(0o600)
    lines = "\n".join(listener_lines([FOUND], config, "")).replace("/etc/", f"{tmp_path}/")
    listeners = configured(tmp_path, lines).listeners
    assert [(one.protocol, one.address, one.port) for one in listeners] == [
        ("imap", "localhost", 1143),
        ("imap", "::1", 1993),
    ]
    assert listeners[1].certificate is not None
    assert listeners[1].certificate.file.name == "it's.pem"


def test_lines_below_listeners_that_stand_there(tmp_path: Path) -> None:
    main = "listeners:\n  - {protocol: imap, address: localhost, port: 1143}\n"
    config = configured(tmp_path, main)
    (line,) = listener_lines([FOUND], config, main)
    assert "port: 1993" in line


def test_no_lines_where_all_is_there(config: Config) -> None:
    assert listener_lines([Found("a program", listeners=LISTENERS[:1])], config, "") == []
