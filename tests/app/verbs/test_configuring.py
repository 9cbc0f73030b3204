"""What the verbs do to the configuration, and what they say, without a daemon; and account_* beside one.

`lookup.py`, which finds what their options point at, is tested with them.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.accounts.passwords import verify_hash
from tests.app.home import ALICE, APPLICATION_ID, DESK, ROBOT_ID, SECRET, Beside, Home, Told, printed_password

APP_FILE, ALICE_FILE = "app-work.yaml", f"account-{ALICE}.yaml"


def app(home: Home) -> dict[str, object]:
    written: dict[str, dict[str, dict[str, object]]] = yaml.safe_load(home.written(APP_FILE))
    return written["apps"]["work"]


def account(home: Home) -> dict[str, object]:
    written: dict[str, list[dict[str, object]]] = yaml.safe_load(home.written(ALICE_FILE))
    return written["accounts"][0]


def passwords(home: Home) -> list[dict[str, Any]]:
    written = account(home)["password"]
    assert isinstance(written, list)
    return written


def private(file: Path) -> bool:
    return stat.S_IMODE(file.stat().st_mode) == 0o600


# --- check


def test_check_of_what_holds(home: Home) -> None:
    home.add_app()
    assert home.run("check").output == (f"{home.file}: the configuration holds. 1 listener, 1 app, 0 accounts.\n")
    assert json.loads(home.run("check", "--json").output) == []


def test_check_tells_every_finding(home: Home) -> None:
    home.write_main("listner: 1\nlog: {level: loud}\n")
    told = home.run("check", exit_code=2)
    assert (told.output.count("error: "), told.errors) == (2, "")
    findings = json.loads(home.run("check", "--json", exit_code=2).output)
    assert [finding["line"] for finding in findings] == [5, 6]
    first = findings[0]
    assert {"file": str(home.file), "severity": "error", "key": "listner"}.items() <= first.items()
    assert first["problem"]
    assert first["remedy"]


def test_check_opens_no_store(home: Home) -> None:
    home.run("check")
    assert not home.state_dir.exists()


def test_a_named_file_that_is_missing(tmp_path: Path, home: Home) -> None:
    home.file.unlink()
    for verb in ("check", "app list", "account list", "serve"):
        told = home.run(*verb.split(), exit_code=2)
        assert str(home.file) in told.output + told.errors


# --- apps


def test_app_add_with_all_its_options(home: Home) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (home.folder / name).write_text("-")
        (home.folder / name).chmod(0o600)
    certificate = ("--certificate", str(home.folder / "cert.pem"), str(home.folder / "key.pem"))
    home.run(
        *("app", "add", "work", "--application-id", APPLICATION_ID, "--account-types", "contoso.com", *certificate),
        *("--flow", "app_only", "--cloud", "gcc_high", "--redirect-uri", "http://localhost:5000/back"),
        *("--authority", "https://login.example/contoso.com", "--ca-file", str(home.folder / "ca.pem")),
    )
    assert app(home) == {
        "application_id": APPLICATION_ID,
        "account_types": "contoso.com",
        "certificate": {"file": str(home.folder / "cert.pem"), "key": str(home.folder / "key.pem")},
        "flow": "app_only",
        "cloud": "gcc_high",
        "redirect_uri": "http://localhost:5000/back",
        "authority": "https://login.example/contoso.com",
        "ca_file": str(home.folder / "ca.pem"),
    }
    assert private(home.folder / "conf.d" / APP_FILE)


def test_files_are_named_from_where_the_command_runs(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.folder)
    (home.folder / "secret").write_text(SECRET)
    (home.folder / "secret").chmod(0o600)
    home.add_app("--client-secret-file", "secret")
    assert app(home)["client_secret"] == {"file": str(home.folder / "secret")}


def test_a_secret_from_standard_input_is_written_and_never_said(home: Home) -> None:
    told = home.run(
        *("app", "add", "work", "--application-id", APPLICATION_ID, "--account-types", "organizations"),
        "--client-secret-stdin",
        types=lambda said: f"{SECRET}\r\n",
    )
    assert app(home)["client_secret"] == SECRET
    assert private(home.folder / "conf.d" / APP_FILE)
    for command in (("app", "list"), ("app", "list", "--json"), ("check",)):
        told = home.run(*command)
        assert SECRET not in told.output + told.errors


@pytest.mark.parametrize(
    ("line", "said"),
    [("", "empty"), (APPLICATION_ID, "Secret ID"), ("\udce4", "UTF-8")],
    ids=["empty", "id", "no text"],
)
def test_a_secret_that_cannot_be_one_changes_nothing(line: str, said: str, home: Home) -> None:
    told = home.run(
        *("app", "add", "work", "--application-id", APPLICATION_ID, "--account-types", "organizations"),
        "--client-secret-stdin",
        types=lambda _: f"{line}\n",
        exit_code=2,
    )
    assert said in told.errors
    assert not (home.folder / "conf.d" / APP_FILE).exists()


@pytest.mark.parametrize(
    ("given", "missing"),
    [((), "--application-id"), (("--application-id", APPLICATION_ID), "--account-types")],
)
def test_what_cannot_be_asked_must_be_given(given: tuple[str, ...], missing: str, home: Home) -> None:
    assert f"Give {missing}" in home.run("app", "add", "work", *given, exit_code=2).errors


def test_app_list(home: Home) -> None:
    assert home.run("app", "list").output == "No apps yet.\n"
    home.add_app()
    heads, row = home.run("app", "list").output.splitlines()
    assert heads.split() == ["NAME", "APPLICATION", "ID", "ACCOUNT", "TYPES", "FLOW", "CREDENTIAL", "ENABLED"]
    assert row.split() == ["work", APPLICATION_ID, "organizations", "delegated", "none", "(public", "client)", "yes"]
    assert json.loads(home.run("app", "list", "--json").output) == [
        {
            "name": "work",
            "application_id": APPLICATION_ID,
            "account_types": "organizations",
            "authority": "https://login.microsoftonline.com/organizations",
            "flow": "delegated",
            "cloud": "global",
            "credential": "none (public client)",
            "client_secret_expires": None,
            "redirect_uri": "http://localhost",
            "enabled": True,
        }
    ]


def test_app_remove(home: Home) -> None:
    home.add_app()
    home.add_account()
    assert "work" in home.run("app", "remove", "work", exit_code=2).errors, "an account uses it"
    home.run("account", "remove", ALICE)
    home.run("app", "remove", "work")
    assert json.loads(home.run("app", "list", "--json").output) == []
    assert "there is no app" in home.run("app", "remove", "work", exit_code=2).errors


def test_app_change(home: Home) -> None:
    home.add_app("--client-secret-expires", "2031-05-01")
    secret = home.folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    told = home.run("app", "change", "work", "--client-secret-file", str(secret), "--account-types", "common")
    assert "is changed" in told.output
    assert app(home) == {
        "application_id": APPLICATION_ID,
        "account_types": "common",
        "client_secret_expires": "2031-05-01",
        "client_secret": {"file": str(secret)},
    }
    home.run("app", "change", "work", "--disable")
    assert app(home)["enabled"] is False
    home.run("app", "change", "work", "--enable", "--no-client-secret")
    assert app(home) == {"application_id": APPLICATION_ID, "account_types": "common"}
    assert "Say what to change" in home.run("app", "change", "work", exit_code=2).errors
    assert "there is no app" in home.run("app", "change", "play", "--disable", exit_code=2).errors


# --- accounts


def test_account_add_prints_the_password_once_and_keeps_its_hash(home: Home) -> None:
    home.add_app()
    told = home.run("account", "add", ALICE)
    password = printed_password(told)
    assert told.output.count(password) == 1
    assert f"Next: mailferry sign-in {ALICE}" in told.output
    written = account(home)
    assert verify_hash(password.encode(), str(written.pop("password")))
    assert written == {"login": ALICE, "app": "work"}
    assert private(home.folder / "conf.d" / ALICE_FILE)
    files = [file for file in home.folder.rglob("*") if file.is_file()]
    assert [file for file in files if password.encode() in file.read_bytes()] == []


def test_account_add_with_its_options(home: Home) -> None:
    home.add_app()
    home.add_account(ALICE, "--app", "work", "--mailbox", "sales@contoso.com", "--sign-in", "bob@contoso.com")
    home.run("account", "remove", ALICE)
    home.add_account(
        ALICE, "--mailbox", "sales@contoso.com", "--sign-in", "bob@contoso.com", "--protocols", "IMAP, smtp"
    )
    written = account(home)
    del written["password"]
    assert written == {
        "login": ALICE,
        "app": "work",
        "mailbox": "sales@contoso.com",
        "sign_in": "bob@contoso.com",
        "protocols": ["imap", "smtp"],
    }


def test_account_add_needs_to_know_the_app(home: Home) -> None:
    assert "mailferry app add" in home.run("account", "add", ALICE, exit_code=2).errors
    home.add_app()
    assert "nowhere" in home.run("account", "add", ALICE, "--app", "nowhere", exit_code=2).errors
    home.run("app", "add", "other", "--application-id", ROBOT_ID, "--account-types", "consumers")
    assert "--app with one of: other, work" in home.run("account", "add", ALICE, exit_code=2).errors
    assert not (home.folder / "conf.d" / ALICE_FILE).exists()


def test_account_change(home: Home) -> None:
    home.add_app()
    home.add_account()
    told = home.run("account", "change", ALICE.upper(), "--mailbox", "sales@contoso.com", "--protocols", "imap,smtp")
    assert "is changed" in told.output
    assert account(home)["mailbox"] == "sales@contoso.com"
    assert account(home)["protocols"] == ["imap", "smtp"]
    home.run("account", "change", ALICE, "--mailbox", "", "--sign-in", "boss@contoso.com")
    assert "mailbox" not in account(home)
    assert account(home)["sign_in"] == "boss@contoso.com"
    assert "Say what to change" in home.run("account", "change", ALICE, exit_code=2).errors
    assert "x" in home.run("account", "change", ALICE, "--mailbox", "x", exit_code=2).errors
    assert "no account" in home.run("account", "change", "nobody", "--mailbox", "x@y", exit_code=2).errors


def test_an_account_that_is_there_keeps_its_passwords(home: Home) -> None:
    home.add_app()
    home.add_account()
    before = home.written(ALICE_FILE)
    told = home.run("account", "add", ALICE.upper(), exit_code=2)
    assert "is there already" in told.errors
    assert "mailferry password" in told.errors
    assert home.written(ALICE_FILE) == before


def test_an_account_whose_app_signs_in_by_itself_has_nothing_to_do_next(furnished: Home) -> None:
    furnished.run("account", "remove", DESK)
    assert "signs in by itself" in furnished.run("account", "add", DESK, "--app", "robot").output


def test_account_list_and_show(home: Home) -> None:
    assert home.run("account", "list").output == "No accounts yet.\n"
    home.add_app()
    home.add_account()
    heads, row = home.run("account", "list").output.splitlines()
    assert heads.split() == ["LOGIN", "STATE", "SINCE", "LAST", "SUCCESS", "APP", "LAST", "ERROR"]
    assert row.split()[:2] == [ALICE, "sign_in_needed"]
    (listed,) = json.loads(home.run("account", "list", "--json").output)
    shown = json.loads(home.run("account", "show", ALICE.upper(), "--json").output)
    assert {**listed, "since": ""} == {**shown, "since": ""}
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
        "last_error": None,
        "remedy": f"Run: mailferry sign-in {ALICE}",
    }
    assert expected.items() <= shown.items()
    lines = home.run("account", "show", ALICE).output.splitlines()
    assert [line.split() for line in lines if line.startswith(("protocols", "app only"))] == [
        ["app", "only", "no"],
        ["protocols", "imap,", "pop3,", "smtp"],
    ]
    assert not any(line.startswith("last error") for line in lines), "what is not is not shown"


@pytest.mark.parametrize("verb", ["account show", "account remove", "sign-in", "sign-out", "password"])
def test_an_account_that_is_not_there(verb: str, home: Home) -> None:
    told = home.run(*verb.split(), ALICE, exit_code=2)
    assert told.errors == f"mailferry: There is no account '{ALICE}'. `mailferry account list` shows those there are.\n"


def test_what_a_person_wrote_is_not_changed(home: Home) -> None:
    home.write_main(
        f"apps:\n  work: {{application_id: {APPLICATION_ID}, account_types: organizations}}\n"
        f"accounts:\n  - {{login: {ALICE}, app: work, password: $scrypt$ln=14,r=8,p=1$c2FsdA$aGFzaA}}\n".replace(
            "password: ", 'password: "'
        ).replace("aGFzaA", 'aGFzaA"')
    )
    before = home.file.read_bytes()
    for command in (("app", "remove", "work"), ("account", "remove", ALICE), ("password", ALICE)):
        assert f"{home.file}:" in home.run(*command, exit_code=2).errors
    assert home.file.read_bytes() == before


# --- passwords


def test_a_new_password_replaces_the_first(home: Home) -> None:
    home.add_app()
    old = home.add_account()
    new = printed_password(home.run("password", ALICE.upper()))
    (entry,) = passwords(home)
    assert verify_hash(new.encode(), entry["hash"])
    assert not verify_hash(old.encode(), entry["hash"])


def test_a_password_for_a_device(home: Home) -> None:
    home.add_app()
    first = home.add_account()
    networks = ("--from", "192.168.1.20", "--from", "10.0.0.0/8")
    for_scanner = printed_password(home.run("password", ALICE, "--name", "scanner", "--protocols", "smtp", *networks))
    main, scanner = passwords(home)
    assert verify_hash(first.encode(), main["hash"])
    assert verify_hash(for_scanner.encode(), scanner.pop("hash"))
    assert scanner == {"name": "scanner", "protocols": ["smtp"], "from": ["192.168.1.20", "10.0.0.0/8"]}
    assert json.loads(home.run("account", "show", ALICE, "--json").output)["passwords"] == ["main", "scanner"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "LOGIN"),
        ((ALICE, "--protocols", "smtp"), "--name"),
        ((ALICE, "--from", "10.0.0.0/8"), "--name"),
        ((ALICE, "--name", "scanner", "--from", "everywhere"), "everywhere"),
    ],
)
def test_a_password_that_cannot_be_made(given: tuple[str, ...], said: str, home: Home) -> None:
    home.add_app()
    home.add_account()
    before = home.written(ALICE_FILE)
    assert said in home.run("password", *given, exit_code=2).errors
    assert home.written(ALICE_FILE) == before


def test_a_password_is_taken_away(home: Home) -> None:
    home.add_app()
    home.add_account()
    home.run("password", ALICE, "--name", "phone")
    assert "good no more" in home.run("password", ALICE, "--remove", "phone").output
    assert [entry.get("name") for entry in passwords(home)] == [None]
    assert "there is no password" in home.run("password", ALICE, "--remove", "phone", exit_code=2).errors
    assert "only password" in home.run("password", ALICE, "--remove", "main", exit_code=2).errors
    assert "--name" in home.run("password", ALICE, "--remove", "phone", "--name", "x", exit_code=2).errors


def test_the_hash_of_a_password_from_standard_input(home: Home) -> None:
    told = home.run("password", "--hash", types=lambda said: "schöne Grüße \n")
    assert verify_hash("schöne Grüße ".encode(), told.output.rstrip("\n"))
    assert told.output.count("\n") == 1


@pytest.mark.parametrize("typed", ["", "\n", "b\udce4r\n"])
def test_no_hash_of_nothing_or_of_what_is_no_text(typed: str, home: Home) -> None:
    told = home.run("password", "--hash", types=lambda said: typed, exit_code=2)
    assert told.output == ""


# --- beside a daemon


def test_a_change_is_told_to_the_daemon(home: Home, beside: Beside) -> None:
    said: list[Told] = []
    said.append(home.run("app", "add", "work", "--application-id", APPLICATION_ID, "--account-types", "organizations"))
    assert said[0].errors == "listeners changed\n", "the daemon's warning"
    home.add_account()
    home.run("password", ALICE)
    assert beside.reloads == 3
    assert [each.name for each in beside.office.config.accounts] == [ALICE]
    home.run("account", "remove", ALICE)
    home.run("app", "remove", "work")
    assert beside.reloads == 5
    assert beside.office.config.apps == {}


def test_the_daemons_accounts_are_listed(home: Home, beside: Beside) -> None:
    home.add_app()
    home.add_account()
    home.write_main("no_such_key: 1\n")
    home.run("account", "list", exit_code=2)
    home.write_main()
    (row,) = json.loads(home.run("account", "list", "--json").output)
    assert row["login"] == ALICE


def test_an_account_that_the_daemon_does_not_know_yet(home: Home, beside: Beside) -> None:
    home.add_app()
    home.add_account()
    (home.folder / "conf.d" / ALICE_FILE).write_text(home.written(ALICE_FILE).replace(ALICE, "bob@contoso.com"))
    os.rename(home.folder / "conf.d" / ALICE_FILE, home.folder / "conf.d" / "account-bob@contoso.com.yaml")
    assert "reload it" in home.run("account", "show", "bob@contoso.com", exit_code=1).errors
    home.run("account", "remove", "bob@contoso.com")
    assert beside.office.config.accounts == ()
