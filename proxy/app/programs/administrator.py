"""The administrator's kit for one account: what must be consented to and switched on, in words and in PowerShell.

Which lines there are follows from the app's flow, its cloud, and whether mailbox and signed-in person differ
(FACTS 1.5-1.7, 2.6). Pure; `kit.py` prints it, the page shows it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from proxy.accounts.permissions import consent_address
from proxy.app.programs.fill import fill
from proxy.app.programs.quoting import powershell
from proxy.config import Account, App
from proxy.config.settings import Cloud, Flow

WIDTH = 72  # characters of a comment in the script, which a mail indents
PERSONAL_DOMAINS = ("outlook.com", "hotmail.com", "live.com", "msn.com")
_CONNECT = {
    Cloud.GLOBAL: "Connect-ExchangeOnline",
    Cloud.GCC_HIGH: "Connect-ExchangeOnline -ExchangeEnvironmentName O365USGovGCCHigh",
    Cloud.DOD: "Connect-ExchangeOnline -ExchangeEnvironmentName O365USGovDoD",
    Cloud.CHINA: "Connect-ExchangeOnline -ExchangeEnvironmentName O365China",
}
_GRAPH = {
    Cloud.GLOBAL: "Global",
    Cloud.GCC_HIGH: "USGov",
    Cloud.DOD: "USGovDoD",
    Cloud.CHINA: "China",
}
_PORTALS = {
    Cloud.GLOBAL: "https://entra.microsoft.com",
    Cloud.GCC_HIGH: "https://entra.microsoft.us",
    Cloud.DOD: "https://entra.microsoft.us",
    Cloud.CHINA: "https://entra.microsoftonline.cn",
}
_DELEGATED = {"imap": "IMAP.AccessAsUser.All", "pop3": "POP.AccessAsUser.All", "smtp": "SMTP.Send"}
_APP_ONLY = {"imap": "IMAP.AccessAsApp", "pop3": "POP.AccessAsApp", "smtp": "SMTP.SendAsApp"}
_SWITCHES = {
    "imap": "-ImapEnabled $true",
    "pop3": "-PopEnabled $true",
    "smtp": "-SmtpClientAuthenticationDisabled $false",
}


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of PowerShell, and what they are for. `optional`: only where the lines above do not suffice."""

    title: str
    why: str
    lines: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Kit:
    """All that an administrator needs. `personal`: there is none, and the person has two switches."""

    login: str
    mailbox: str
    who: str
    """Who signs in; empty where the app does."""
    app: str
    application_id: str
    permissions: tuple[str, ...]
    consent: str
    """The address to open; empty where consent is given in the portal, or by nobody."""
    portal: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    personal: bool = False

    @property
    def script(self) -> str:
        """All blocks as one PowerShell file; optional ones as comments."""
        parts = []
        for block in self.blocks:
            lines = [f"# {line}" for line in block.lines] if block.optional else list(block.lines)
            comment = textwrap.wrap(f"{block.title}. {block.why}.", WIDTH, break_long_words=False)
            parts.append("\n".join((*(f"# {line}" for line in comment), *lines)))
        return "\n\n".join(parts) + "\n"

    @property
    def mail(self) -> str:
        """A mail to the administrator: subject line, empty line, text."""
        return fill("administrator_mail.txt", kit=self)


def kit_for(account: Account) -> Kit:
    """The kit of this account's mailbox and app."""
    app = account.app
    if _is_personal(account):
        return _personal_kit(account)
    app_only = app.flow is Flow.APP_ONLY
    shared = not app_only and account.mailbox.casefold() != account.sign_in.casefold()
    return Kit(
        login=account.name,
        mailbox=account.mailbox,
        who="" if app_only else account.sign_in,
        app=app.name,
        application_id=app.application_id,
        permissions=tuple((_APP_ONLY if app_only else _DELEGATED)[each] for each in account.protocols),
        consent=consent_address(_of_an_organisation(app)),
        portal=_PORTALS[app.cloud],
        blocks=tuple(_blocks(account, shared=shared)),
        notes=tuple(_notes(account, shared=shared)),
    )


def _blocks(account: Account, *, shared: bool) -> Sequence[Block]:
    app_only = account.app.flow is Flow.APP_ONLY
    blocks = [
        Block(
            "Connect",
            "Needs the role Exchange administrator; the first line once on each machine",
            ("Install-Module ExchangeOnlineManagement -Scope CurrentUser", _CONNECT[account.app.cloud]),
        ),
        *_switches(account, shared=shared),
    ]
    if app_only:
        blocks += _service_principal(account)
    elif shared:
        blocks.append(_delegate(account))
    if "smtp" in account.protocols:
        blocks.append(
            Block(
                "SMTP AUTH for the whole organisation",
                "Only if you want it on for every mailbox that has no switch of its own; the mailbox's own switch wins",
                ("Set-TransportConfig -SmtpClientAuthenticationDisabled $false",),
                optional=True,
            )
        )
    return blocks


def _switches(account: Account, *, shared: bool) -> list[Block]:
    """Which protocols must be on, at which mailbox: SMTP says the name of who signs in (FACTS 2.6)."""
    reading: list[str] = [each for each in account.protocols if each != "smtp"]
    at: list[tuple[str, list[str]]] = [(account.mailbox, list(account.protocols))]
    if shared:
        at = [(account.mailbox, reading), (account.sign_in, ["smtp"] if "smtp" in account.protocols else [])]
    blocks = []
    for mailbox, protocols in at:
        if not protocols:
            continue
        who = powershell(mailbox)
        switches = " ".join(_SWITCHES[each] for each in protocols)
        blocks.append(
            Block(
                f"Protocols of {mailbox}",
                "SMTP AUTH is off by default; OAuth does not bypass it. A change takes up to an hour"
                if "smtp" in protocols
                else "On by default, unless somebody switched them off. A change takes up to an hour",
                (
                    f"Set-CASMailbox -Identity {who} {switches}",
                    f"Get-CASMailbox -Identity {who} | Format-List "
                    "ImapEnabled,PopEnabled,SmtpClientAuthenticationDisabled",
                ),
            )
        )
    return blocks


def _delegate(account: Account) -> Block:
    mailbox, who = powershell(account.mailbox), powershell(account.sign_in)
    lines = []
    if account.protocols != ("smtp",):
        lines.append(
            f"Add-MailboxPermission -Identity {mailbox} -User {who} -AccessRights FullAccess -AutoMapping $false"
        )
    if "smtp" in account.protocols:
        lines.append(f"Add-RecipientPermission -Identity {mailbox} -Trustee {who} -AccessRights SendAs -Confirm:$false")
    return Block(
        f"{account.sign_in} works in {account.mailbox}",
        "Full access to read it, Send As to send in its name; each is given apart",
        tuple(lines),
    )


def _service_principal(account: Account) -> list[Block]:
    app = account.app
    name = powershell(f"mailferry {app.name}")
    lookup = Block(
        "The app in Exchange",
        "Its object id is that of the Enterprise application, not the one under App registrations: with the wrong one "
        "every login fails. The first lines look it up",
        (
            "Install-Module Microsoft.Graph.Applications -Scope CurrentUser",
            f"Connect-MgGraph -Environment {_GRAPH[app.cloud]} -Scopes 'Application.Read.All'",
            f"$app = Get-MgServicePrincipal -Filter \"appId eq '{app.application_id}'\"",
            f"New-ServicePrincipal -AppId {powershell(app.application_id)} -ObjectId $app.Id -DisplayName {name}",
        ),
    )
    mailbox = powershell(account.mailbox)
    lines = []
    if account.protocols != ("smtp",):
        lines.append(f"Add-MailboxPermission -Identity {mailbox} -User $app.Id -AccessRights FullAccess")
    if "smtp" in account.protocols:
        lines.append(
            f"Add-RecipientPermission -Identity {mailbox} -Trustee $app.Id -AccessRights SendAs -Confirm:$false"
        )
    rights = Block(
        f"The app's rights in {account.mailbox}",
        "Without them a login succeeds, and every command after it fails",
        tuple(lines),
    )
    return [lookup, rights]


def _notes(account: Account, *, shared: bool) -> Sequence[str]:
    app = account.app
    notes = []
    if app.flow is Flow.APP_ONLY:
        notes += [
            "Add the permissions under API permissions > Add a permission > APIs my organization uses > Office 365 "
            "Exchange Online > Application permissions, then choose Grant admin consent. They are not those of "
            "Microsoft Graph.",
            "The app reaches only the mailboxes that it is given rights in, as below. Nobody signs in: whoever knows a "
            "local password of mailferry reads that mailbox.",
        ]
    else:
        notes.append(
            "Since November 2025 an organisation's default is that an administrator must consent to programs that read "
            "mail by IMAP or POP. The portal lists the permissions under Microsoft Graph; they are Exchange's all the "
            "same."
        )
    notes.append(
        f"After consent the browser is sent to {app.redirect_uri}, which may show an error or nothing at all. Consent "
        "is given if that address says admin_consent=True."
    )
    if shared:
        notes.append(
            f"{account.sign_in} signs in, and {account.mailbox} is opened. SMTP says the name of who signs in, so SMTP "
            "AUTH is switched on there and not at the shared mailbox."
        )
    if app.cloud is not Cloud.GLOBAL:
        notes.append(
            "The app must be registered in this same national cloud; the addresses here are Microsoft's, and untested."
        )
    return notes


def _is_personal(account: Account) -> bool:
    if account.app.flow is Flow.APP_ONLY:
        return False
    if account.app.account_types == "consumers":
        return True
    return account.app.account_types == "common" and account.sign_in.rpartition("@")[2].casefold() in PERSONAL_DOMAINS


def _personal_kit(account: Account) -> Kit:
    notes = (
        "A personal Microsoft account has no administrator. POP and IMAP are off until you switch them on yourself: "
        "outlook.com > Settings > Mail > Forwarding and IMAP > Let devices and apps use POP, and IMAP.",
        "You consent yourself, when you sign in.",
    )
    return Kit(
        login=account.name,
        mailbox=account.mailbox,
        who=account.sign_in,
        app=account.app.name,
        application_id=account.app.application_id,
        permissions=tuple(_DELEGATED[each] for each in account.protocols),
        consent="",
        portal="https://outlook.live.com/mail/options/mail/forwarding",
        blocks=(),
        notes=notes,
        personal=True,
    )


def _of_an_organisation(app: App) -> App:
    """Personal accounts cannot consent for others, so `common` is not an address for it."""
    if app.own_authority or urlsplit(app.authority).path != "/common":
        return app
    return replace(app, authority=f"{app.authority.removesuffix('common')}organizations")
