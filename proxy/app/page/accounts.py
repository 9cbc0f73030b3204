"""Accounts on the page: the live list, and each one's state, settings and removal."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import partial
from typing import Any

from proxy.app.page import words
from proxy.app.page.wire import Answer, Asked, Page, Problem, Redirect, Route, path_to
from proxy.app.registry import by_field
from proxy.app.verbs.terminal import UsageError
from proxy.config import Account, ConfigurationError, Value
from proxy.config.settings import PROTOCOL_NAMES

REFRESH_SOON_S = 3  # while something is under way
REFRESH_S = 30
_TEXTS = ("mailbox", "sign_in")
_IN_FORM = ("login", "app", *_TEXTS)


async def show_all(asked: Asked) -> Answer:
    rows = (await asked.service.desk.ask("accounts", {}))["accounts"]
    busy = any(row["state"] in words.UNDER_WAY for row in rows)
    apps = bool(asked.service.config().apps)
    shown = [_shown(row) for row in rows]
    return Page("accounts.html", refresh_s=REFRESH_SOON_S if busy else REFRESH_S, rows=shown, apps=apps)


async def show_new(asked: Asked) -> Answer:
    apps = list(asked.service.config().apps)
    if not apps:
        return Redirect("/apps/new", "First an app: an account signs in with one.")
    form = dict.fromkeys(_IN_FORM, "") | {"app": apps[0]}
    return _form(asked, "account_new.html", form, list(PROTOCOL_NAMES), {}, [])


async def add(asked: Asked) -> Answer:
    """One stage: every error at once. The new password is shown by the next page, once."""
    form, protocols = dict.fromkeys(_IN_FORM, "") | asked.form, asked.chosen("protocols")
    login = form["login"]
    errors = {} if login else {"login": "Write what the mail program shall send as user name; most often the address."}
    if not protocols:
        errors["protocols"] = "Choose at least one."
    if errors:
        return _form(asked, "account_new.html", form, protocols, errors, [])
    more: dict[str, Value] = {**{key: form[key] for key in _TEXTS}, "protocols": _protocols(protocols)}
    try:
        made = await asked.service.change(partial(asked.service.registry.add_account, login, form["app"], more))
    except UsageError:
        errors = {"login": "There is an account with this login."}
        return _form(asked, "account_new.html", form, protocols, errors, [])
    except ConfigurationError as error:
        errors, others = by_field(error, "accounts[0].")
        return _form(asked, "account_new.html", form, protocols, errors, others)
    asked.keep(f"password of {login}", {"password": made.password, "device": ""})
    return Redirect(path_to("/accounts/{login}", login=login))


async def show(asked: Asked) -> Answer:
    row = await asked.service.row(asked.path["login"])
    if row is None:
        return _no_account(asked)
    secret = asked.take(f"password of {row['login']}")
    soon = row["state"] in words.UNDER_WAY
    return Page(
        "account.html",
        refresh_s=0 if secret else REFRESH_SOON_S if soon else REFRESH_S,  # a password stays until it is copied
        row=_shown(row),
        secret=secret,
    )


async def show_change(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    form = {
        "login": account.name,
        "app": account.app.name,
        "mailbox": "" if account.mailbox == account.name else account.mailbox,
        "sign_in": "" if account.sign_in == account.mailbox else account.sign_in,
    }
    return _form(asked, "account_change.html", form, list(account.protocols), {}, [])


async def change(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    form, protocols = dict.fromkeys(_IN_FORM, "") | asked.form | {"login": account.name}, asked.chosen("protocols")
    if not protocols:
        return _form(asked, "account_change.html", form, protocols, {"protocols": "Choose at least one."}, [])
    changes: dict[str, Value] = {key: form[key] or None for key in ("app", *_TEXTS)}
    changes["protocols"] = _protocols(protocols) or None
    try:
        await asked.service.change(partial(asked.service.registry.change_account, account.name, changes))
    except ConfigurationError as error:
        errors, others = by_field(error, "accounts[0].")
        return _form(asked, "account_change.html", form, protocols, errors, others)
    return Redirect(path_to("/accounts/{login}", login=account.name), f"{account.name} is changed.")


async def show_removal(asked: Asked) -> Answer:
    account = _account(asked)
    return _no_account(asked) if account is None else Page("account_remove.html", login=account.name)


async def remove(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    shared = any(
        other.identity == account.identity and other.name != account.name for other in asked.service.config().accounts
    )
    await asked.service.in_thread(partial(asked.service.registry.remove_account, account.name))
    if not shared:  # while the desk still knows it
        await asked.service.desk.ask("sign_out", {"login": account.name})
    await asked.service.desk.ask("reload", {})
    return Redirect("/accounts", f"Account {account.name} is forgotten, and its tokens with it.")


def _protocols(chosen: list[str]) -> list[str]:
    """In our order; empty, the default, for all of them."""
    known: list[str] = [name for name in PROTOCOL_NAMES if name in chosen]
    return [] if len(known) == len(PROTOCOL_NAMES) else known


def _form(
    asked: Asked,
    template: str,
    form: Mapping[str, str],
    protocols: list[str],
    errors: Mapping[str, str],
    others: list[str],
) -> Page:
    apps = [(name, name, words.account_types(app)) for name, app in asked.service.config().apps.items()]
    return Page(
        template,
        status=422 if errors or others else 200,
        form=form,
        protocols=[(name, name.upper(), name in protocols) for name in PROTOCOL_NAMES],
        errors={**dict.fromkeys((*_IN_FORM, "protocols"), ""), **errors},
        others=[*others, *(text for key, text in errors.items() if key not in (*_IN_FORM, "protocols"))],
        apps=apps,
        ours=template == "account_new.html" or asked.service.registry.wrote("account", form["login"]),
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a person: the state in a sentence, who must act, and what ends when."""
    return {
        **row,
        "sentence": words.STATES[row["state"]],
        "must_act": words.must_act(row.get("who")),
        "expiries": words.expiries(row, datetime.datetime.now(datetime.UTC)),
        "troubled": bool(row["last_error"]) and (row["last_success"] or "") <= (row["last_error_at"] or ""),
    }


def _account(asked: Asked) -> Account | None:
    return asked.service.config().account(asked.path["login"])


def _no_account(asked: Asked) -> Problem:
    return Problem(404, "No such account", f"There is no account {asked.path['login']}.", "See the list of accounts.")


ROUTES = (
    Route("GET", "/accounts", show_all, here="accounts"),
    Route("GET", "/accounts/new", show_new, here="accounts"),
    Route("POST", "/accounts/new", add, here="accounts"),
    Route("GET", "/accounts/{login}", show, here="accounts"),
    Route("GET", "/accounts/{login}/change", show_change, here="accounts"),
    Route("POST", "/accounts/{login}/change", change, here="accounts"),
    Route("GET", "/accounts/{login}/remove", show_removal, here="accounts"),
    Route("POST", "/accounts/{login}/remove", remove, here="accounts"),
)
