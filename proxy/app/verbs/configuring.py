"""The verbs `check`, `app`, `account` and `password`: the configuration, read and changed; and how each account is."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from proxy import config as configuration
from proxy.accounts.passwords import hash_password
from proxy.app.answers import EXIT_USAGE, DeskError
from proxy.app.counter import Counter, reload_daemon
from proxy.app.verbs.lookup import find_account, find_config, find_loaded, find_only_app, find_registry
from proxy.app.verbs.terminal import UsageError, ask, print_table, read_line, shown
from proxy.config import Account, App, Config, ConfigurationError, Value
from proxy.config.settings import Flow

_ACCOUNT_KEYS = ("mailbox", "sign_in", "protocols")


def check(options: Namespace) -> int:
    try:
        loaded = find_loaded(options)
        findings, held = loaded.findings, True
    except ConfigurationError as error:
        findings, held = error.findings, False
    if options.json:
        print(json.dumps([_plain(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding}")
        if held:
            print(f"{loaded.config.file or 'The defaults'}: the configuration holds. {_census(loaded.config)}")
    return 0 if held else EXIT_USAGE


# --- apps


def app_add(options: Namespace) -> int:
    registry, config = find_registry(options), find_config(options)
    app: dict[str, Value] = {
        "application_id": options.application_id
        or ask("Application (client) ID, from the registration's overview page", "--application-id"),
        "account_types": options.account_types
        or ("organizations" if options.authority else None)
        or ask(
            "Who signs in? consumers (Hotmail, Outlook.com), organizations (Microsoft 365), common (both), "
            "or your directory id",
            "--account-types",
            default="organizations",
        ),
    }
    secret = _client_secret(options)
    if secret is None and options.application_id is None and not options.certificate and sys.stdin.isatty():
        secret = read_line("Client secret's Value (empty for a mobile and desktop registration): ", hidden=True) or None
    file = registry.add_app(options.name, app | _app_keys(options, secret))
    print(f"App {options.name} is written to {file}.")
    _tell_daemon(config)
    print("Next: mailferry account add LOGIN")
    return 0


def app_change(options: Namespace) -> int:
    registry, config = find_registry(options), find_config(options)
    changes: dict[str, Value] = _app_keys(options, _client_secret(options))
    for key in ("application_id", "account_types"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    if options.no_client_secret:
        changes |= {"client_secret": None, "client_secret_expires": None}
    if options.enabled is not None:
        changes["enabled"] = None if options.enabled else False
    if not changes:
        raise UsageError("Say what to change; `mailferry app change --help` lists it.")
    file = registry.change_app(options.name, changes)
    print(f"App {options.name} is changed in {file}.")
    _tell_daemon(config)
    return 0


def app_list(options: Namespace) -> int:
    rows = [_app_row(app) for app in find_config(options).apps.values()]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows, ("name", "application_id", "account_types", "flow", "credential", "enabled"), "No apps yet.")
    return 0


def app_remove(options: Namespace) -> int:
    config = find_config(options)
    file = find_registry(options).remove_app(options.name)
    print(f"App {options.name} is forgotten; {file} is gone.")
    _tell_daemon(config)
    return 0


# --- accounts


def account_add(options: Namespace) -> int:
    registry, config = find_registry(options), find_config(options)
    app = options.app or (find_only_app(config) if config.account(options.login) is None else "")
    made = registry.add_account(options.login, app, {key: getattr(options, key) for key in _ACCOUNT_KEYS})
    print(f"Account {options.login} is written to {made.file}.")
    print(f"Its local password, shown this once; type it into the mail program:\n\n    {made.password}\n")
    _tell_daemon(config)
    if app in config.apps and config.apps[app].flow is Flow.APP_ONLY:
        print("Its app signs in by itself: nothing more to do.")
    else:
        print(f"Next: mailferry sign-in {options.login}")
    return 0


def account_change(options: Namespace) -> int:
    config = find_config(options)
    account = find_account(config, options.login)
    changes: dict[str, Value] = {
        key: getattr(options, key) or None for key in (*_ACCOUNT_KEYS, "app") if getattr(options, key) is not None
    }
    if not changes:
        raise UsageError("Say what to change: --app, --mailbox, --sign-in or --protocols.")
    file = find_registry(options).change_account(account.name, changes)
    print(f"Account {account.name} is changed in {file}.")
    _tell_daemon(config)
    return 0


def account_list(options: Namespace) -> int:
    with Counter(find_config(options)) as counter:
        rows = counter.ask("accounts")["accounts"]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print_table(rows, ("login", "state", "since", "last_success", "app", "last_error"), "No accounts yet.")
    return 0


def account_show(options: Namespace) -> int:
    config = find_config(options)
    account = find_account(config, options.login)
    with Counter(config) as counter:
        row = _row_of(account, counter)
    if row is None:
        raise DeskError(f"The daemon does not know {account.name} yet: reload it (SIGHUP), and see what it logs.")
    if options.json:
        print(json.dumps(row, indent=2))
        return 0
    width = max(map(len, row))
    for key, value in row.items():
        if value not in (None, [], ""):
            print(f"{key.replace('_', ' '):{width}}  {shown(value)}")
    return 0


def account_remove(options: Namespace) -> int:
    config = find_config(options)
    account = find_account(config, options.login)
    shared = any(other.identity == account.identity for other in config.accounts if other is not account)
    with Counter(config) as counter:  # it knows the old configuration until it is told to reload
        known = _row_of(account, counter) is not None  # asked first: if nobody can be asked, nothing is changed
        file = find_registry(options).remove_account(options.login)
        if known and not shared:
            counter.ask("sign_out", login=account.name)
    print(f"Account {account.name} is forgotten; {file} is gone.")
    _tell_daemon(config)
    return 0


def password(options: Namespace) -> int:
    if options.hash:
        given = read_line("Password: ", hidden=True)
        if not given:
            raise UsageError("Give the password on standard input.")
        print(hash_password(given))
        return 0
    if not options.login:
        raise UsageError("Give a LOGIN, or --hash.")
    if (options.protocols or options.networks) and not options.name:
        raise UsageError("--protocols and --from are for a further password: give it a --name.")
    if options.remove and options.name:
        raise UsageError("Give --name for a new password, or --remove for an old one.")
    config = find_config(options)
    account, registry = find_account(config, options.login), find_registry(options)
    if options.remove:
        file = registry.remove_password(account.name, options.remove)
        print(f"The password {options.remove} of {account.name} is good no more; {file} has forgotten it.")
        _tell_daemon(config)
        return 0
    made = registry.new_password(account.name, options.name or "", options.protocols or (), options.networks or ())
    print(f"The new local password of {account.name}{f' for {options.name}' if options.name else ''}, shown this once:")
    print(f"\n    {made.password}\n\nIts hash is in {made.file}.")
    _tell_daemon(config)
    return 0


# --- what they share


def _row_of(account: Account, counter: Counter) -> dict[str, Any] | None:
    """What is known of the account, if it is known where we ask."""
    rows: list[dict[str, Any]] = counter.ask("accounts")["accounts"]
    return next((row for row in rows if row["login"] == account.name), None)


def _tell_daemon(config: Config) -> None:
    for warning in reload_daemon(config):
        print(warning, file=sys.stderr)


def _client_secret(options: Namespace) -> Value:
    if options.client_secret_file:
        return {"file": _absolute(options.client_secret_file)}
    if options.client_secret_stdin:
        return read_line("Client secret (its Value): ", hidden=True)
    return None


def _app_keys(options: Namespace, secret: Value) -> dict[str, Value]:
    """What `app add` and `app change` take alike, where it was given."""
    app: dict[str, Value] = {}
    if secret is not None:
        app["client_secret"] = secret
    if options.certificate:
        pem, key_file = options.certificate
        app["certificate"] = {"file": _absolute(pem), "key": _absolute(key_file)}
    for key in ("client_secret_expires", "flow", "cloud", "redirect_uri", "authority"):
        if getattr(options, key) is not None:
            app[key] = getattr(options, key)
    if options.ca_file:
        app["ca_file"] = _absolute(options.ca_file)
    return app


def _absolute(path: str) -> str:
    """From where the person stands; in conf.d a relative one would mean conf.d."""
    return str(Path(path).absolute())


def _census(config: Config) -> str:
    counts = ((config.listeners, "listener"), (config.apps, "app"), (config.accounts, "account"))
    return ", ".join(f"{len(things)} {name}{'' if len(things) == 1 else 's'}" for things, name in counts) + "."


def _plain(finding: configuration.Finding) -> dict[str, Any]:
    return {
        "file": str(finding.file),
        "line": finding.line,
        "key": finding.key,
        "problem": finding.problem,
        "remedy": finding.remedy,
        "severity": finding.severity,
    }


def _app_row(app: App) -> dict[str, Any]:
    credential = "certificate" if app.certificate else "secret" if app.client_secret else "none (public client)"
    return {
        "name": app.name,
        "application_id": app.application_id,
        "account_types": app.account_types,
        "authority": app.authority,
        "flow": app.flow.value,
        "cloud": app.cloud.value,
        "credential": credential,
        "client_secret_expires": app.client_secret_expires.isoformat() if app.client_secret_expires else None,
        "redirect_uri": app.redirect_uri,
        "enabled": app.enabled,
    }
