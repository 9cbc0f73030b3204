"""Signing in on the page: this browser, a device code, or a pasted address; and signing out.

The way to Microsoft is a page that leads there, not a redirect of the form: `form-action` would be held against every
address that Microsoft sends the browser on to. The way back is `returning.py`'s.
"""

from __future__ import annotations

import datetime
from typing import Any

from proxy.accounts.endings import pasted
from proxy.app.answers import DeskError
from proxy.app.page.wire import Answer, Asked, Page, Problem, Redirect, Route, path_to
from proxy.config import Account
from proxy.config.settings import Flow

POLL_S = 3  # how often the page looks whether the code was entered


async def show(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    return await _page(asked, account)


async def by_browser(asked: Asked) -> Answer:
    """Send this browser to Microsoft."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    if account.app.flow is Flow.APP_ONLY:
        return await _check_app_only(asked, account)
    redirect_uri = asked.service.returns.address(account.app.redirect_uri)
    if redirect_uri is None:
        return await _page(
            asked, account, f"The app's redirect address is {account.app.redirect_uri}: use another way."
        )
    try:
        begun = await asked.service.desk.ask("begin_code", {"login": account.name, "redirect_uri": redirect_uri})
    except DeskError as error:
        return await _page(asked, account, error.text)
    asked.service.returns.expect(begun["id"], account.name, asked.base, redirect_uri)
    return Page("leaving.html", refresh_to=begun["address"], address=begun["address"], user=account.sign_in)


async def by_device(asked: Asked) -> Answer:
    """Begin a device code, and show it on a page of its own."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    try:
        begun = await asked.service.desk.ask("begin_device", {"login": account.name})
    except DeskError as error:
        return await _page(asked, account, error.text)
    return Redirect(path_to("/accounts/{login}/sign-in/device/{id}", login=account.name, id=begun["id"]))


async def show_device(asked: Asked) -> Answer:
    """The code, as long as Microsoft waits for it; then how it ended."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    try:
        device = await asked.service.desk.ask("look_at_device", {"id": asked.path["id"]})
    except DeskError as error:
        return await _page(asked, account, error.text)
    if device["signed_in"] is not None:
        return _done(account, device["signed_in"])
    left_s = device["expires_at_s"] - datetime.datetime.now(datetime.UTC).timestamp()
    return Page(
        "device.html",
        refresh_s=POLL_S,
        login=account.name,
        user=account.sign_in,
        code=device["code"],
        address=device["address"],
        minutes=max(1, round(left_s / 60)),
    )


async def begin_paste(asked: Asked) -> Answer:
    """For a browser on another machine: an address to open there."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    request = {"login": account.name, "redirect_uri": account.app.redirect_uri}
    try:
        begun = await asked.service.desk.ask("begin_code", request)
    except DeskError as error:
        return await _page(asked, account, error.text)
    asked.keep(f"paste of {account.name}", begun)
    return Redirect(path_to("/accounts/{login}/sign-in/paste", login=account.name))


async def show_paste(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    begun = asked.take(f"paste of {account.name}")
    if begun is None:
        return await _page(asked, account, "That sign-in is over. Start it again.")
    asked.keep(f"paste of {account.name}", begun)
    return _paste_page(account, begun, "")


async def finish_paste(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    begun = asked.take(f"paste of {account.name}")
    if begun is None:
        return await _page(asked, account, "That sign-in is over. Start it again.")
    query = pasted(asked.form.get("address", ""))
    if not {"code", "error"} & query.keys():
        asked.keep(f"paste of {account.name}", begun)
        return _paste_page(
            account, begun, "This holds no answer of Microsoft. Copy the whole address from the browser."
        )
    try:
        answer = await asked.service.desk.ask("finish_code", {"id": begun["id"], "query": dict(query)})
    except DeskError as error:
        return await _page(asked, account, error.text)
    return _done(account, answer["signed_in"])


async def sign_out(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    await asked.service.desk.ask("sign_out", {"login": account.name})
    to = path_to("/accounts/{login}", login=account.name)
    return Redirect(to, f"Signed out: the tokens of {account.sign_in} are forgotten here. Microsoft keeps the consent.")


async def _check_app_only(asked: Asked, account: Account) -> Answer:
    """There is nobody to sign in: have the app ask for a token. Raises: LoginRefused."""
    answer = await asked.service.desk.ask("check_app_only", {"login": account.name})
    to = path_to("/accounts/{login}", login=account.name)
    return Redirect(to, f"App {answer['signed_in']} signs in by itself, and Microsoft gave it a token just now.")


async def _page(asked: Asked, account: Account, problem: str = "") -> Page:
    """The three ways; and why the last try failed."""
    row: dict[str, Any] = await asked.service.row(account.name) or {}
    return Page(
        "sign_in.html",
        status=409 if problem else 200,
        login=account.name,
        user=account.sign_in,
        app_only=account.app.flow is Flow.APP_ONLY,
        browser=asked.service.returns.address(account.app.redirect_uri) is not None,
        redirect_uri=account.app.redirect_uri,
        signed_in=row.get("state") not in ("sign_in_needed", "signing_in", "disabled"),
        disabled=not account.app.enabled,
        app=account.app.name,
        problem=problem,
    )


def _paste_page(account: Account, begun: dict[str, Any], error: str) -> Page:
    return Page(
        "paste.html",
        status=422 if error else 200,
        login=account.name,
        user=account.sign_in,
        address=begun["address"],
        redirect_uri=account.app.redirect_uri,
        error=error,
    )


def _done(account: Account, user: str) -> Redirect:
    return Redirect(path_to("/accounts/{login}", login=account.name), f"Signed in as {user}.")


def _account(asked: Asked) -> Account | None:
    return asked.service.config().account(asked.path["login"])


def _no_account(asked: Asked) -> Problem:
    return Problem(404, "No such account", f"There is no account {asked.path['login']}.", "See the list of accounts.")


ROUTES = (
    Route("GET", "/accounts/{login}/sign-in", show, here="accounts"),
    Route("POST", "/accounts/{login}/sign-in", by_browser, here="accounts"),
    Route("POST", "/accounts/{login}/sign-in/device", by_device, here="accounts"),
    Route("GET", "/accounts/{login}/sign-in/device/{id}", show_device, here="accounts"),
    Route("POST", "/accounts/{login}/sign-in/paste", begin_paste, here="accounts"),
    Route("GET", "/accounts/{login}/sign-in/paste", show_paste, here="accounts"),
    Route("POST", "/accounts/{login}/sign-in/paste/finish", finish_paste, here="accounts"),
    Route("POST", "/accounts/{login}/sign-out", sign_out, here="accounts"),
)
