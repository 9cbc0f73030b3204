"""Local passwords on the page: a new one, further ones for devices, and taking them away. Each is shown once."""

from __future__ import annotations

from functools import partial

from proxy.app.page.wire import Answer, Asked, Page, Problem, Redirect, Route, path_to
from proxy.app.registry import by_field
from proxy.config import Account, ConfigurationError
from proxy.config.accounts import FIRST_PASSWORD
from proxy.config.settings import PROTOCOL_NAMES

_FIELDS = ("name", "from")


async def show(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    return _page(asked, account, dict.fromkeys(_FIELDS, ""), list(PROTOCOL_NAMES), {})


async def renew(asked: Asked) -> Answer:
    """A new first password; the old one is good no more."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    return await _made(asked, account, "", [], [])


async def add(asked: Asked) -> Answer:
    """A further one, for a device; one of the same name is replaced only if the person says so."""
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    form, protocols = dict.fromkeys(_FIELDS, "") | asked.form, asked.chosen("protocols")
    errors: dict[str, str] = {}
    if not form["name"]:
        errors["name"] = "Name the device, so that you know later which password to take away."
    elif form["name"] in (local.name for local in account.passwords):
        errors["name"] = "There is a password of this name; remove it first, or choose another name."
    if not [name for name in protocols if name in PROTOCOL_NAMES]:
        errors["protocols"] = "Choose at least one."
    if errors:
        return _page(asked, account, form, protocols, errors)
    networks = form["from"].replace(",", " ").split()
    try:
        return await _made(
            asked, account, form["name"], [name for name in PROTOCOL_NAMES if name in protocols], networks
        )
    except ConfigurationError as error:
        errors, others = by_field(error, "accounts[0].")
        told = " ".join([*errors.values(), *others])  # what stands in a password is told at the one free text in it
        return _page(asked, account, form, protocols, {"from" if networks else "name": told})


async def remove(asked: Asked) -> Answer:
    account = _account(asked)
    if account is None:
        return _no_account(asked)
    name = asked.path["name"]
    await asked.service.change(partial(asked.service.registry.remove_password, account.name, name))
    return Redirect(path_to("/accounts/{login}/passwords", login=account.name), f"The password {name} is good no more.")


async def _made(asked: Asked, account: Account, name: str, protocols: list[str], networks: list[str]) -> Answer:
    registry = asked.service.registry
    made = await asked.service.change(partial(registry.new_password, account.name, name, protocols, networks))
    asked.keep(f"password of {account.name}", {"password": made.password, "device": name})
    return Redirect(path_to("/accounts/{login}/passwords", login=account.name))


def _page(asked: Asked, account: Account, form: dict[str, str], protocols: list[str], errors: dict[str, str]) -> Page:
    return Page(
        "passwords.html",
        status=422 if errors else 200,
        login=account.name,
        secret=asked.take(f"password of {account.name}"),
        passwords=[
            {
                "name": local.name,
                "first": local.name == FIRST_PASSWORD,
                "protocols": ", ".join(name.upper() for name in local.protocols),
                "networks": ", ".join(map(str, local.networks)) or "anywhere",
            }
            for local in account.passwords
        ],
        form=form,
        protocols=[(name, name.upper(), name in protocols) for name in PROTOCOL_NAMES],
        errors={**dict.fromkeys((*_FIELDS, "protocols"), ""), **errors},
        ours=asked.service.registry.wrote("account", account.name),
    )


def _account(asked: Asked) -> Account | None:
    return asked.service.config().account(asked.path["login"])


def _no_account(asked: Asked) -> Problem:
    return Problem(404, "No such account", f"There is no account {asked.path['login']}.", "See the list of accounts.")


ROUTES = (
    Route("GET", "/accounts/{login}/passwords", show, here="accounts"),
    Route("POST", "/accounts/{login}/passwords", add, here="accounts"),
    Route("POST", "/accounts/{login}/passwords/new", renew, here="accounts"),
    Route("POST", "/accounts/{login}/passwords/{name}/remove", remove, here="accounts"),
)
