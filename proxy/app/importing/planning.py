"""What was found -> a plan: which apps and accounts are to be written, under which names, with what is opened. Pure.

Called by `app/moving_in.py`, which shows a plan, and by `app/takeover.py`, which carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from proxy.app.importing.found import Found, FoundAccount, FoundApp, FoundListener, Verdict
from proxy.app.importing.seals import open_sealed
from proxy.config import App, Config, Value

_LISTENERS = re.compile(r"^listeners\s*:", re.MULTILINE)
NAME = "imported"  # of the first app; the next is imported-2


@dataclass(frozen=True, slots=True)
class Opened:
    """What stood behind an account's seals."""

    password: str = field(default="", repr=False)
    """That opened them; empty where nothing was sealed."""
    refresh_token: str = field(default="", repr=False)
    client_secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PlannedApp:
    name: str
    keys: Mapping[str, Value] = field(repr=False)
    is_there: bool = False


@dataclass(frozen=True, slots=True)
class PlannedAccount:
    login: str
    app: str
    keys: Mapping[str, Value]
    opened: Opened
    app_only: bool = False
    is_there: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an app, an account or a token."""

    kind: Literal["app", "account", "token"]
    name: str
    verdict: Verdict
    text: str
    password: str = field(default="", repr=False)
    """A new local password, shown this once."""
    failed: bool = False
    """It should have worked."""
    next: str = ""
    """The command to go on with."""


@dataclass(frozen=True, slots=True)
class Plan:
    apps: tuple[PlannedApp, ...]
    accounts: tuple[PlannedAccount, ...]
    refused: tuple[Outcome, ...]
    """What cannot be written, and why."""


def open_account(account: FoundAccount, password: str) -> Opened | None:
    """What this password opens; None: it is not the account's. Takes up to seconds for each thing that is sealed."""
    texts: dict[str, str] = {}
    for name, sealed in (
        ("refresh_token", account.refresh_token),
        ("client_secret", account.client_secret),
        ("proof", account.proof if not (account.refresh_token or account.client_secret) else None),
    ):
        if sealed is not None:
            text = open_sealed(sealed, password)
            if text is None:
                return None
            texts[name] = text
    used = password if account.sealed else ""
    return Opened(used, texts.get("refresh_token", ""), texts.get("client_secret", ""))


def plan(
    found: Sequence[Found],
    config: Config,
    opened: Mapping[str, Opened],
    *,
    app: str | None = None,
    ca_file: Path | None = None,
) -> Plan:
    """What is to be written. `opened` by folded login; `app` serves accounts that bring none of their own.

    `ca_file` is for private sign-in services, which no public authority vouches for.
    """
    return _Planning(config, opened, app, ca_file).plan(found)


class _Planning:
    def __init__(self, config: Config, opened: Mapping[str, Opened], app: str | None, ca_file: Path | None) -> None:
        self._config = config
        self._opened = opened
        self._app = app
        self._ca_file = ca_file
        self._apps: dict[FoundApp, PlannedApp] = {}
        self._accounts: dict[str, PlannedAccount] = {}
        self._refused: list[Outcome] = []

    def plan(self, found: Sequence[Found]) -> Plan:
        for each in found:
            for account in each.accounts:
                self._plan_account(account)
            served = {account.app for account in each.accounts}
            for app in each.apps:
                if app not in served:  # a domain's, whose accounts are named one by one later
                    self._plan_app(app)
        return Plan(tuple(self._apps.values()), tuple(self._accounts.values()), tuple(self._refused))

    def _plan_account(self, account: FoundAccount) -> None:
        login = account.login.casefold()
        if login in self._accounts:
            return
        opened = self._opened.get(login, Opened())
        known = self._config.account(account.login)
        if known is not None:
            app_only = known.app.flow.value == "app_only"
            self._accounts[login] = PlannedAccount(account.login, known.app.name, {}, opened, app_only, is_there=True)
            return
        name, app_only = self._app or "", False
        if account.app is not None:
            wanted = account.app
            if account.client_secret is not None:
                wanted = replace(wanted, client_secret=opened.client_secret)
            app_only = wanted.flow == "app_only"
            if app_only and not (wanted.client_secret or wanted.certificate):
                text = "its app's secret is sealed: give the mail program's password, and run this again"
                self._refuse(account, text)
                return
            name = self._plan_app(wanted).name
        if not name:
            self._refuse(
                account, "it needs an app of your own: mailferry app add NAME, then this again with --app NAME"
            )
            return
        keys: dict[str, Value] = {"login": account.login, "app": name}
        if account.protocols:
            keys["protocols"] = list(account.protocols)
        self._accounts[login] = PlannedAccount(account.login, name, keys, opened, app_only)

    def _refuse(self, account: FoundAccount, text: str) -> None:
        self._refused.append(Outcome("account", account.login, Verdict.NOT_TAKEN, text))

    def _plan_app(self, app: FoundApp) -> PlannedApp:
        if app not in self._apps:
            known = next((one for one in self._config.apps.values() if _is_same(one, app)), None)
            if known is not None:
                self._apps[app] = PlannedApp(known.name, {}, is_there=True)
            else:
                self._apps[app] = PlannedApp(self._free_name(), self._keys(app))
        return self._apps[app]

    def _free_name(self) -> str:
        taken = {*self._config.apps, *(planned.name for planned in self._apps.values())}
        numbered = (f"{NAME}-{number}" for number in range(2, len(taken) + 3))
        return next(name for name in (NAME, *numbered) if name not in taken)

    def _keys(self, app: FoundApp) -> dict[str, Value]:
        keys: dict[str, Value] = {"application_id": app.application_id}
        if app.authority:
            keys["authority"] = app.authority
        else:
            keys["account_types"] = app.account_types
        if app.cloud != "global":
            keys["cloud"] = app.cloud
        if app.flow != "delegated":
            keys["flow"] = app.flow
        if app.redirect_uri:
            keys["redirect_uri"] = app.redirect_uri
        if app.client_secret:
            keys["client_secret"] = app.client_secret
        elif app.certificate:
            keys["certificate"] = {"file": app.certificate[0], "key": app.certificate[1]}
        if app.authority and self._ca_file is not None:
            keys["ca_file"] = str(self._ca_file)
        return keys


def _is_same(known: App, app: FoundApp) -> bool:
    where = known.authority if known.own_authority else known.account_types
    return (
        known.application_id == app.application_id
        and known.flow.value == app.flow
        and known.cloud.value == app.cloud
        and where == (app.authority or app.account_types)
    )


def foresee(plan: Plan) -> Iterator[Outcome]:
    """What `carry_out` would do, as far as it shows without writing or asking Microsoft."""
    yield from plan.refused
    for app in plan.apps:
        yield there("app", app.name) if app.is_there else Outcome("app", app.name, Verdict.TAKEN, "would be written")
    for account in plan.accounts:
        if account.is_there:
            yield there("account", account.login)
            continue
        keeps = bool(kept_password(account))
        text = f"would be written, with {'the password that it has' if keeps else 'a new local password'}"
        yield Outcome("account", account.login, Verdict.TAKEN if keeps else Verdict.OTHERWISE, text)
        if account.opened.refresh_token:
            yield Outcome(
                "token", account.login, Verdict.TAKEN, "would be handed to Microsoft for a new one, and stored"
            )
        elif not account.app_only:
            yield sign_in_first(account.login, "would need a sign-in: no token was opened")


def listener_lines(found: Sequence[Found], config: Config, main_text: str) -> list[str]:
    """Lines for the main file, so that mail programs find mailferry where the old program was; none if they do.

    Where the file names listeners, these come below them. Else they take the place of the defaults.
    """
    there = {(listener.protocol, listener.port) for listener in config.listeners}
    wanted = dict.fromkeys(listener for each in found for listener in each.listeners)
    missing = [listener for listener in wanted if (listener.protocol, listener.port) not in there]
    if not missing or _LISTENERS.search(main_text):
        return [_yaml(listener) for listener in missing]
    return ["listeners:", *map(_yaml, wanted)]


def _yaml(listener: FoundListener) -> str:
    more = ""
    if listener.certificate:
        file, key = (_quoted(path) for path in listener.certificate)
        more = f", certificate: {{file: {file}, key: {key}}}"
    address = f'"{listener.address}"' if ":" in listener.address else listener.address
    return f"  - {{protocol: {listener.protocol}, address: {address}, port: {listener.port}, tls: auto{more}}}"


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"


def there(kind: Literal["app", "account"], name: str) -> Outcome:
    return Outcome(kind, name, Verdict.TAKEN, "is there already")


def kept_password(account: PlannedAccount) -> str:
    """The password that the mail program goes on to send, if it is known to be the right one."""
    password = account.opened.password
    return password if password.isprintable() else ""


def sign_in_first(login: str, text: str) -> Outcome:
    return Outcome("token", login, Verdict.NOT_TAKEN, text, next=f"mailferry sign-in {login}")
