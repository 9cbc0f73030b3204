"""The administrator's kit on the page."""

from __future__ import annotations

from tests.app.home import ALICE, APPLICATION_ID, DESK, ROBOT_ID
from tests.app.page.visitor import Visitor


def test_the_first_accounts_kit_and_links_to_the_others(resident: Visitor) -> None:
    reply = resident.get("/administrator")
    assert ALICE in reply.words
    assert APPLICATION_ID in reply.words
    assert f"Set-CASMailbox -Identity '{ALICE}' -ImapEnabled $true" in reply.words
    assert "Subject: Please allow alice@contoso.com" in reply.words
    assert "/administrator?login=desk%40contoso.com" in reply.text


def test_another_accounts_kit(resident: Visitor) -> None:
    reply = resident.get(f"/administrator?login={DESK}")
    assert ROBOT_ID in reply.words
    assert "New-ServicePrincipal" in reply.words
    assert "the app itself" in reply.words


def test_the_script(resident: Visitor) -> None:
    reply = resident.get(f"/administrator/mailferry.ps1?login={DESK}")
    assert reply.text.startswith("\ufeff# Connect.")
    assert "New-ServicePrincipal" in reply.text
    assert 'filename="mailferry.ps1"' in reply.header("content-disposition")


def test_without_accounts(visitor: Visitor) -> None:
    assert "There is no account yet" in visitor.get("/administrator").words
    assert visitor.get("/administrator/mailferry.ps1").status == 404


def test_nobody(resident: Visitor) -> None:
    assert resident.get("/administrator?login=nobody").status == 404
