"""App registrations on the page: entering, changing, switching, removing. Secrets go in and never come out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from proxy.app.page import words
from proxy.app.page.wire import Answer, Asked, Page, Problem, Redirect, Route
from proxy.app.registry import by_field
from proxy.config import App, ConfigurationError, Value
from proxy.config.apps import NAME
from proxy.config.settings import Cloud, Flow

DIRECTORY = "directory"  # the choice behind which the id or domain is typed
TEXTS = ("application_id", "client_secret_expires", "redirect_uri", "authority", "ca_file")
_TAKEN = "There is an app with this name; choose another, or change that one."
_NO_NAME = "Use up to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit."
_NO_DIRECTORY = "Give the organisation's directory (tenant) ID, or its domain."
_RESERVED = ("new",)  # /apps/new is the form


async def show_all(asked: Asked) -> Answer:
    apps = asked.service.config().apps.values()
    return Page("apps.html", apps=[_shown(app) for app in apps])


async def show_new(asked: Asked) -> Answer:  # noqa: ARG001
    empty = {
        "name": "work",
        "account_types": "organizations",
        "flow": Flow.DELEGATED.value,
        "cloud": Cloud.GLOBAL.value,
    }
    return _form("app_new.html", _BLANK | empty, {}, [])


async def add(asked: Asked) -> Answer:
    """One stage: every error at once, each at its field."""
    form = _BLANK | asked.form
    name, app = form["name"], _keys(form)
    secret = form["client_secret"]
    if secret:
        app["client_secret"] = secret
    registry = asked.service.registry
    errors: dict[str, str] = {}
    if not NAME.fullmatch(name) or name in _RESERVED:
        errors["name"] = _NO_NAME
    elif name.casefold() in map(str.casefold, asked.service.config().apps):
        errors["name"] = _TAKEN
    judged_as = "new" if errors else name
    try:
        if errors:
            await asked.service.in_thread(partial(registry.judge_app, judged_as, app))
        else:
            await asked.service.change(partial(registry.add_app, name, app))
    except ConfigurationError as error:
        found, others = by_field(error, f"apps.{judged_as}.")
        return _form("app_new.html", form, errors | found, others)
    if errors:
        return _form("app_new.html", form, errors, [])
    return Redirect("/", f"App {name} is entered and enabled.")


async def show(asked: Asked) -> Answer:
    app = _app(asked)
    if app is None:
        return _no_app(asked)
    form = _BLANK | {
        "application_id": app.application_id,
        "account_types": app.account_types if app.account_types in words.ACCOUNT_TYPES else DIRECTORY,
        "directory": "" if app.account_types in words.ACCOUNT_TYPES else app.account_types,
        "client_secret_expires": app.client_secret_expires.isoformat() if app.client_secret_expires else "",
        "flow": app.flow.value,
        "cloud": app.cloud.value,
        "redirect_uri": app.redirect_uri,
        "authority": app.authority if app.own_authority else "",
        "ca_file": str(app.ca_file or ""),
    }
    return _change_form(asked, app, form, {}, [])


async def change(asked: Asked) -> Answer:
    """One stage, too. An empty secret keeps the old one."""
    app = _app(asked)
    if app is None:
        return _no_app(asked)
    form = _BLANK | asked.form
    changes = {**dict.fromkeys((*TEXTS, "account_types", "flow", "cloud")), **_keys(form)}
    if form["client_secret"]:
        changes["client_secret"] = form["client_secret"]
    elif form["no_secret"]:
        changes |= {"client_secret": None, "client_secret_expires": None}
    try:
        await asked.service.change(partial(asked.service.registry.change_app, app.name, changes))
    except ConfigurationError as error:
        found, others = by_field(error, f"apps.{app.name}.")
        return _change_form(asked, app, form, found, others)
    return Redirect("/apps", f"App {app.name} is changed.")


async def enable(asked: Asked) -> Answer:
    return await _switch(asked, enabled=True)


async def disable(asked: Asked) -> Answer:
    return await _switch(asked, enabled=False)


async def show_removal(asked: Asked) -> Answer:
    app = _app(asked)
    if app is None:
        return _no_app(asked)
    users = [account.name for account in asked.service.config().accounts if account.app.name == app.name]
    return Page("app_remove.html", name=app.name, users=users)


async def remove(asked: Asked) -> Answer:
    app = _app(asked)
    if app is None:
        return _no_app(asked)
    await asked.service.change(partial(asked.service.registry.remove_app, app.name))
    return Redirect("/apps", f"App {app.name} is forgotten. At Microsoft it is still registered.")


async def _switch(asked: Asked, *, enabled: bool) -> Answer:
    app = _app(asked)
    if app is None:
        return _no_app(asked)
    await asked.service.change(partial(asked.service.registry.switch_app, app.name, enabled=enabled))
    word = "enabled" if enabled else "disabled: nobody signs in with it, and its accounts stand still"
    return Redirect("/apps", f"App {app.name} is {word}.")


_BLANK: dict[str, str] = dict.fromkeys(
    ("name", "account_types", "directory", "flow", "cloud", "client_secret", "no_secret", *TEXTS), ""
)


def _keys(form: Mapping[str, str]) -> dict[str, Value]:
    """The configuration's keys of what was entered; what is empty is left out, but for what must be there."""
    types = form["directory"] if form["account_types"] == DIRECTORY else form["account_types"]
    keys: dict[str, Value] = {key: form[key] for key in (*TEXTS, "flow", "cloud") if form[key]}
    keys["application_id"] = form["application_id"] or None
    if types or not form["authority"]:
        keys["account_types"] = types or "?"  # judged, and told at its field
    return keys


def _form(template: str, form: Mapping[str, str], errors: Mapping[str, str], others: list[str]) -> Page:
    """The form as it was filled in, but for the secret, which is typed again."""
    shown = {**form, "client_secret": ""}
    if form["account_types"] == DIRECTORY and "account_types" in errors:
        told = errors["account_types"] if form["directory"] else _NO_DIRECTORY
        errors = {key: text for key, text in errors.items() if key != "account_types"} | {"directory": told}
    if "client_secret" not in errors and form["client_secret"] and (errors or others):
        errors = {**errors, "client_secret": "Type it again: it is not sent back to the browser."}
    types = [(key, text, "") for key, text in words.ACCOUNT_TYPES.items()]
    types.append((DIRECTORY, "Only one organisation", "Give its directory (tenant) ID or its domain below."))
    return Page(
        template,
        status=422 if errors or others else 200,
        form=shown,
        errors=_Errors(errors),
        others=others,
        types=types,
        flows=[
            (Flow.DELEGATED.value, "People sign in", "Each mailbox's owner says yes once (delegated)."),
            (Flow.APP_ONLY.value, "The app signs in by itself", "For one organisation, with a secret (app-only)."),
        ],
        clouds=[
            (Cloud.GLOBAL.value, "Worldwide", ""),
            (Cloud.GCC_HIGH.value, "US Government GCC High", ""),
            (Cloud.DOD.value, "US Government DoD", ""),
            (Cloud.CHINA.value, "China (21Vianet)", ""),
        ],
        directory=DIRECTORY,
    )


class _Errors(dict[str, str]):
    """Empty for a field without an error."""

    def __missing__(self, key: str) -> str:
        return ""


def _change_form(asked: Asked, app: App, form: Mapping[str, str], errors: Mapping[str, str], others: list[str]) -> Page:
    page = _form("app.html", form, errors, others)
    page.context |= {"app": _shown(app), "ours": asked.service.registry.wrote("app", app.name)}
    return page


def _shown(app: App) -> dict[str, object]:
    return {
        "name": app.name,
        "application_id": app.application_id,
        "account_types": words.account_types(app),
        "flow": words.flow(app),
        "credential": words.credential(app),
        "has_secret": app.client_secret is not None,
        "client_secret_expires": app.client_secret_expires.isoformat() if app.client_secret_expires else "",
        "enabled": app.enabled,
    }


def _app(asked: Asked) -> App | None:
    return asked.service.config().apps.get(asked.path["name"])


def _no_app(asked: Asked) -> Problem:
    return Problem(404, "No such app", f"There is no app {asked.path['name']}.", "See the list of apps.")


ROUTES = (
    Route("GET", "/apps", show_all, here="setup"),
    Route("GET", "/apps/new", show_new, here="setup"),
    Route("POST", "/apps/new", add, here="setup"),
    Route("GET", "/apps/{name}", show, here="setup"),
    Route("POST", "/apps/{name}", change, here="setup"),
    Route("POST", "/apps/{name}/enable", enable, here="setup"),
    Route("POST", "/apps/{name}/disable", disable, here="setup"),
    Route("GET", "/apps/{name}/remove", show_removal, here="setup"),
    Route("POST", "/apps/{name}/remove", remove, here="setup"),
)
