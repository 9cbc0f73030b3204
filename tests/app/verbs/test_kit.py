"""The verb `administrator`."""

from __future__ import annotations

import json

import pytest

from tests.app.home import ALICE, APPLICATION_ID, Home


@pytest.fixture
def desk(home: Home) -> Home:
    home.add_app()
    home.add_account()
    return home


def test_it_is_printed(desk: Home) -> None:
    output = desk.run("administrator", ALICE).output
    assert APPLICATION_ID in output
    assert "https://login.microsoftonline.com/organizations/v2.0/adminconsent?" in output
    assert "    Set-CASMailbox -Identity 'alice@contoso.com' -ImapEnabled $true" in output
    assert f"mailferry administrator {ALICE} --mail" in output


def test_as_a_mail_a_script_and_json(desk: Home) -> None:
    mail = desk.run("administrator", ALICE, "--mail").output
    script = desk.run("administrator", ALICE, "--script").output
    document = json.loads(desk.run("administrator", ALICE, "--json").output)
    assert mail.startswith("Subject: ")
    assert script.startswith("# Connect.")
    assert (document["mail"], document["script"]) == (mail, script)
    assert document["permissions"] == ["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"]


def test_a_personal_account(home: Home) -> None:
    home.run("app", "add", "own", "--application-id", APPLICATION_ID, "--account-types", "consumers")
    home.add_account("alice@outlook.com", "--app", "own")
    assert "Forwarding and IMAP" in home.run("administrator", "alice@outlook.com").output
    assert "no administrator" in home.run("administrator", "alice@outlook.com", "--script", exit_code=2).errors


def test_nobody(desk: Home) -> None:
    assert "There is no account" in desk.run("administrator", "bob@contoso.com", exit_code=2).errors
