"""The administrator's kit on the page: consent address, PowerShell lines and a mail text, filled for one account."""

from __future__ import annotations

from proxy.app.page.wire import Answer, Asked, Download, Page, Problem, Route
from proxy.app.programs.administrator import kit_for
from proxy.config import Account


async def show(asked: Asked) -> Answer:
    """Without `login` the first account's; the others are a link away."""
    accounts = asked.service.config().accounts
    account = _account(asked)
    if account is None and "login" in asked.query:
        return _no_account()
    return Page("administrator.html", account=account, accounts=accounts, kit=kit_for(account) if account else None)


async def download(asked: Asked) -> Answer:
    """The script, as PowerShell reads it: with a mark, else letters beyond ASCII are mistaken."""
    account = _account(asked)
    if account is None:
        return _no_account()
    script = kit_for(account).script.replace("\n", "\r\n")
    return Download(script.encode("utf-8-sig"), "text/plain; charset=utf-8", "mailferry.ps1")


def _account(asked: Asked) -> Account | None:
    config = asked.service.config()
    if "login" in asked.query:
        return config.account(asked.query["login"])
    return config.accounts[0] if config.accounts else None


def _no_account() -> Problem:
    return Problem(404, "There is no such account", "It was removed, or never there.", "See the list of accounts.")


ROUTES = (
    Route("GET", "/administrator", show, here="administrator"),
    Route("GET", "/administrator/mailferry.ps1", download, here="administrator"),
)
