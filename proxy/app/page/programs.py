"""Settings for mail programs on the page: the list, each one's steps and files, the sheet; Thunderbird's autoconfig."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlencode

from proxy.app.certificates import Change, announcements, read_authority
from proxy.app.page.wire import Answer, Asked, Download, Page, Problem, Route
from proxy.app.programs.clients import CLIENTS, Client, find_client, guide
from proxy.app.programs.connection import Authority, Connection, Unreachable
from proxy.app.programs.guide import Guide
from proxy.app.programs.reach import connect, connect_anybody
from proxy.app.programs.thunderbird import AUTOCONFIG_PATH, autoconfig
from proxy.config import Account
from proxy.config.fields import HOST

NO_DOMAIN = "mail.invalid"  # whoever asks without one gets the same settings
MAX_HOST_CHARACTERS = 253


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What a person asked for: a program, and from where it reaches us."""

    account: Account
    client: Client
    connection: Connection
    guide: Guide
    host: str
    tls: bool
    changes: list[Change]

    @property
    def query(self) -> str:
        """The same choice, for the links to its files."""
        given = {name: value for name, value in (("host", self.host), ("tls", "yes" if self.tls else "")) if value}
        return f"?{urlencode(given)}" if given else ""


async def show_all(asked: Asked) -> Answer:
    """Whose settings? With one account there is no question."""
    accounts = asked.service.config().accounts
    if len(accounts) == 1:
        return Page("programs.html", account=accounts[0], accounts=accounts, clients=CLIENTS)
    return Page("programs.html", account=None, accounts=accounts, clients=CLIENTS)


async def show_clients(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account()
    return Page("programs.html", account=account, accounts=asked.service.config().accounts, clients=CLIENTS)


async def show(asked: Asked) -> Answer:
    """One program's guide; the sheet has a page of its own, which prints well."""
    chosen = await _choose(asked)
    if not isinstance(chosen, _Chosen):
        return chosen
    template = "sheet.html" if chosen.client.name == "sheet" else "program.html"
    return Page(template, chosen=chosen, guide=chosen.guide, client=chosen.client, account=chosen.account)


async def download(asked: Asked) -> Answer:
    chosen = await _choose(asked)
    if not isinstance(chosen, _Chosen):
        return chosen
    file = chosen.guide.file(asked.path["file"])
    if file is None:
        return Problem(404, "Nothing is here", "This program has no such file.")
    return Download(file.octets, file.media_type, file.name)


async def show_autoconfig(asked: Asked) -> Answer:
    """For Thunderbird, which has no cookie: the same for everybody, whether or not there is such an account."""
    domain = asked.query.get("emailaddress", "").rpartition("@")[2].casefold()
    if not HOST.fullmatch(domain):
        domain = NO_DOMAIN
    connection = connect_anybody(asked.service.config(), await _authority(asked), domain)
    try:
        text = autoconfig(connection, domain)
    except Unreachable as error:
        return Problem(404, "Nothing is here", str(error))
    return Download(text.encode(), "text/xml; charset=utf-8")


async def _choose(asked: Asked) -> _Chosen | Problem:
    account, client = _account(asked), find_client(asked.path["client"])
    if account is None:
        return _no_account()
    if client is None:
        return Problem(404, "Nothing is known of this program", "Choose one of the list.")
    host, tls = asked.query.get("host", "").strip(), asked.query.get("tls") == "yes"
    if host and not _is_host(host):
        return Problem(400, "That is no name of a machine", "Write a name such as mail.example.lan, or an IP address.")
    config = asked.service.config()
    connection = connect(config, account, await _authority(asked), host=host, private=tls)
    try:
        made = guide(client, connection)
    except Unreachable as error:
        return Problem(409, f"No settings for {client.title}", str(error), "Choose another program, or change that.")
    changes = await asked.service.in_thread(lambda: announcements(config, time.time()))
    return _Chosen(account, client, connection, made, host, tls, changes)


async def _authority(asked: Asked) -> Authority | None:
    found: Authority | None = await asked.service.in_thread(lambda: read_authority(asked.service.config()))
    return found


def _account(asked: Asked) -> Account | None:
    return asked.service.config().account(asked.path["login"])


def _no_account() -> Problem:
    return Problem(404, "There is no such account", "It was removed, or never there.", "See the list of accounts.")


def _is_host(text: str) -> bool:
    return len(text) <= MAX_HOST_CHARACTERS and bool(HOST.fullmatch(text.replace(":", "")))


ROUTES = (
    Route("GET", "/programs", show_all, here="programs"),
    Route("GET", "/accounts/{login}/program", show_clients, here="programs"),
    Route("GET", "/accounts/{login}/program/{client}", show, here="programs"),
    Route("GET", "/accounts/{login}/program/{client}/{file}", download, here="programs"),
    Route("GET", AUTOCONFIG_PATH, show_autoconfig, open=True),
    Route("GET", "/.well-known/autoconfig/mail/config-v1.1.xml", show_autoconfig, open=True),
)
