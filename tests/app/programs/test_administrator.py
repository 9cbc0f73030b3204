"""The administrator's kit: which lines, at which mailbox, for which flow and cloud; nothing gets out of its quotes."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given

from proxy.app.programs.administrator import Kit, kit_for
from proxy.config import Account, App
from proxy.config.clouds import SIGN_IN_HOSTS
from proxy.config.settings import PROTOCOL_NAMES, Cloud, Flow, ProtocolName, Secret
from tests.app.home import APPLICATION_ID, SECRET
from tests.app.programs.facts import addresses

WORK = App(
    name="work",
    application_id=APPLICATION_ID,
    account_types="organizations",
    authority="https://login.microsoftonline.com/organizations",
    own_authority=False,
    client_secret=Secret(SECRET),
    certificate=None,
    flow=Flow.DELEGATED,
    cloud=Cloud.GLOBAL,
    redirect_uri="http://localhost",
    enabled=True,
    ca_file=None,
)
ALICE = Account(
    logins=("alice@contoso.com",),
    app=WORK,
    passwords=(),
    mailbox="alice@contoso.com",
    sign_in="alice@contoso.com",
    protocols=PROTOCOL_NAMES,
    imap_connections=16,
    smtp_connections=3,
    messages_per_minute=30,
)
SHARED = replace(ALICE, mailbox="sales@contoso.com")
ROBOT = replace(
    ALICE,
    mailbox="desk@contoso.com",
    app=replace(WORK, flow=Flow.APP_ONLY, authority="https://login.microsoftonline.com/contoso.com"),
)
PERSONAL = replace(ALICE, app=replace(WORK, account_types="consumers"))


def lines(kit: Kit) -> list[str]:
    return [line for block in kit.blocks for line in block.lines]


def test_a_persons_own_mailbox() -> None:
    assert lines(kit_for(ALICE)) == [
        "Install-Module ExchangeOnlineManagement -Scope CurrentUser",
        "Connect-ExchangeOnline",
        "Set-CASMailbox -Identity 'alice@contoso.com' -ImapEnabled $true -PopEnabled $true "
        "-SmtpClientAuthenticationDisabled $false",
        "Get-CASMailbox -Identity 'alice@contoso.com' | "
        "Format-List ImapEnabled,PopEnabled,SmtpClientAuthenticationDisabled",
        "Set-TransportConfig -SmtpClientAuthenticationDisabled $false",
    ]


def test_a_shared_mailbox_is_read_there_and_sends_by_who_signs_in() -> None:
    told = lines(kit_for(SHARED))
    assert "Set-CASMailbox -Identity 'sales@contoso.com' -ImapEnabled $true -PopEnabled $true" in told
    assert "Set-CASMailbox -Identity 'alice@contoso.com' -SmtpClientAuthenticationDisabled $false" in told
    assert (
        "Add-MailboxPermission -Identity 'sales@contoso.com' -User 'alice@contoso.com' -AccessRights FullAccess "
        "-AutoMapping $false"
    ) in told
    assert (
        "Add-RecipientPermission -Identity 'sales@contoso.com' -Trustee 'alice@contoso.com' -AccessRights SendAs "
        "-Confirm:$false"
    ) in told


def test_an_app_of_its_own_gets_rights_by_its_enterprise_application() -> None:
    kit = kit_for(ROBOT)
    told = lines(kit)
    assert f"$app = Get-MgServicePrincipal -Filter \"appId eq '{APPLICATION_ID}'\"" in told
    assert f"New-ServicePrincipal -AppId '{APPLICATION_ID}' -ObjectId $app.Id -DisplayName 'mailferry work'" in told
    assert "Add-MailboxPermission -Identity 'desk@contoso.com' -User $app.Id -AccessRights FullAccess" in told
    assert any("Enterprise application" in block.why for block in kit.blocks)
    assert kit.permissions == ("IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp")
    assert kit.who == ""
    assert "SMTP.SendAsApp (Exchange Online, application)" in " ".join(kit.mail.split())


@pytest.mark.parametrize("protocols", [("imap",), ("smtp",), ("imap", "smtp")])
@pytest.mark.parametrize("account", [ALICE, SHARED, ROBOT], ids=["own", "shared", "app"])
def test_only_what_the_account_uses(account: Account, protocols: tuple[ProtocolName, ...]) -> None:
    kit = kit_for(replace(account, protocols=protocols))
    told = "\n".join(lines(kit))
    assert ("-ImapEnabled $true" in told) is ("imap" in protocols)
    assert "-PopEnabled $true" not in told
    assert ("SmtpClientAuthenticationDisabled $false" in told) is ("smtp" in protocols)
    assert ("SendAs" in told) is ("smtp" in protocols and account is not ALICE)
    assert ("FullAccess" in told) is ("imap" in protocols and account is not ALICE)
    assert len(kit.permissions) == len(protocols)


def test_the_consent_address_is_filled() -> None:
    address = urlsplit(kit_for(ALICE).consent)
    query = parse_qs(address.query)
    assert address.path == "/organizations/v2.0/adminconsent"
    assert query["client_id"] == [APPLICATION_ID]
    assert query["redirect_uri"] == ["http://localhost"]
    assert query["scope"][0].split()[0] == "https://outlook.office.com/IMAP.AccessAsUser.All"


def test_personal_accounts_cannot_consent_for_others() -> None:
    common = replace(WORK, account_types="common", authority="https://login.microsoftonline.com/common")
    assert "/organizations/v2.0/" in kit_for(replace(ALICE, app=common)).consent
    private = replace(common, authority="https://localhost:1234/common", own_authority=True)
    assert kit_for(replace(ALICE, app=private)).consent.startswith("https://localhost:1234/common/v2.0/")


@pytest.mark.parametrize("cloud", Cloud)
def test_each_cloud_has_its_own_doors(cloud: Cloud) -> None:
    authority = f"https://{SIGN_IN_HOSTS[cloud]}/contoso.com"
    kit = kit_for(replace(ROBOT, app=replace(ROBOT.app, cloud=cloud, authority=authority)))
    told = "\n".join(lines(kit))
    assert ("-ExchangeEnvironmentName" in told) is (cloud is not Cloud.GLOBAL)
    assert kit.consent.startswith(authority)
    assert ("national cloud" in " ".join(kit.notes)) is (cloud is not Cloud.GLOBAL)


def test_a_personal_account_has_no_administrator() -> None:
    hotmail = replace(ALICE, sign_in="alice@hotmail.com", app=replace(WORK, account_types="common"))
    for account in (PERSONAL, hotmail):
        kit = kit_for(account)
        assert kit.personal
        assert (kit.consent, kit.blocks) == ("", ())
        assert "Forwarding and IMAP" in kit.notes[0]
        assert "nothing to do for an administrator" in kit.mail
    assert not kit_for(replace(hotmail, sign_in="alice@contoso.com")).personal


def test_the_mail_holds_all_of_it() -> None:
    kit = kit_for(SHARED)
    subject, _, text = kit.mail.partition("\n\n")
    assert subject == f"Subject: Please allow sales@contoso.com for a mail program (application {APPLICATION_ID})"
    assert kit.consent in text
    for line in lines(kit):
        assert line in text
    assert SECRET not in text
    assert "Who signs in: alice@contoso.com" in text


def test_optional_lines_are_comments_in_the_script() -> None:
    script = kit_for(ALICE).script
    assert "\n# Set-TransportConfig" in script
    assert "\nSet-CASMailbox" in script


@given(addresses, addresses)
def test_no_name_gets_out_of_its_quotes(mailbox: str, sign_in: str) -> None:
    """Without what is quoted, every script is the same."""
    usual = kit_for(SHARED).script
    odd = kit_for(replace(SHARED, mailbox=mailbox, sign_in=sign_in)).script
    if mailbox.casefold() != sign_in.casefold():
        assert _bare(odd) == _bare(usual)


def _bare(script: str) -> list[str]:
    """The commands, with every string cut out, as PowerShell reads them."""
    quote = "['\u2018\u2019\u201a\u201b]"
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    return [re.sub(f"{quote}(?:[^'\u2018-\u201b]|{quote}{{2}})*{quote}", "''", line) for line in commands]
