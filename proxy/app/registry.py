"""The registry: what can be done to apps, accounts and local passwords, for the command line and the page alike.

Each change is judged as a whole and written into conf.d (`proxy/config/conf_d.py`); nothing is half done. It blocks:
files and scrypt. Who calls it has the daemon reload afterwards, and says the rest to a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy import config as configuration
from proxy.accounts.passwords import generate_password, hash_password
from proxy.app.verbs.terminal import UsageError
from proxy.config import Config, ConfigurationError, Value


@dataclass(frozen=True, slots=True)
class Made:
    """What was written, and the local password that nobody sees again."""

    file: Path
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registry:
    """The apps and accounts beside one main file.

    All methods raise ConfigurationError: the configuration would not load with the change; nothing is changed.
    """

    main: Path
    environ: Mapping[str, str] = field(repr=False)

    def read(self) -> Config:
        """The configuration as the files are now."""
        return configuration.read(self.main, self.environ).config

    # --- apps

    def add_app(self, name: str, app: Mapping[str, Value]) -> Path:
        """Enter an app, in place of what mailferry wrote about it before."""
        return configuration.write_app(self.main, name, app, self.environ)

    def judge_app(self, name: str, app: Mapping[str, Value]) -> None:
        """What `add_app` would find wrong; nothing is written."""
        configuration.judge_app(self.main, name, app, self.environ)

    def change_app(self, name: str, changes: Mapping[str, Value]) -> Path:
        """Change these keys and keep the others, the secret among them; None takes a key away."""
        return configuration.change_app(self.main, name, changes, self.environ)

    def switch_app(self, name: str, *, enabled: bool) -> Path:
        """Enable the app, or have nobody sign in with it for now."""
        return self.change_app(name, {"enabled": None if enabled else False})

    def remove_app(self, name: str) -> Path:
        return configuration.remove_app(self.main, name, self.environ)

    # --- accounts

    def add_account(self, login: str, app: str, more: Mapping[str, Value]) -> Made:
        """Enter an account with a new local password; `more`: mailbox, sign_in, protocols, and what else it may have.

        Raises:
            UsageError: there is one with this login.
        """
        if self.read().account(login) is not None:
            raise UsageError(
                f"Account {login} is there already. For a new password: mailferry password {login}. "
                f"To begin anew: mailferry account remove {login}"
            )
        secret = generate_password()
        account: dict[str, Value] = {"login": login, "app": app, "password": hash_password(secret), **_given(more)}
        return Made(configuration.write_account(self.main, account, self.environ), secret)

    def change_account(self, login: str, changes: Mapping[str, Value]) -> Path:
        """Change these keys and keep the others; None takes a key away, so that its default holds."""
        return configuration.change_account(self.main, login, changes, self.environ)

    def remove_account(self, login: str) -> Path:
        return configuration.remove_account(self.main, login, self.environ)

    # --- local passwords

    def new_password(
        self, login: str, name: str = "", protocols: Sequence[str] = (), networks: Sequence[str] = ()
    ) -> Made:
        """A new first password; or with a name a further one, for a device. One of the same name is replaced."""
        secret = generate_password()
        more = _given({"name": name, "protocols": list(protocols), "from": list(networks)})
        entry: dict[str, Value] = {"hash": hash_password(secret), **more}
        return Made(configuration.add_password(self.main, login, entry, self.environ), secret)

    def remove_password(self, login: str, name: str) -> Path:
        return configuration.remove_password(self.main, login, name, self.environ)

    def wrote(self, kind: str, name: str) -> bool:
        """Whether mailferry wrote this `app` or `account`: what a person wrote is theirs to change."""
        return configuration.is_ours(self.main, "app" if kind == "app" else "account", name)


def by_field(error: ConfigurationError, inside: str) -> tuple[dict[str, str], list[str]]:
    """What is wrong, in words: by key for what stands `inside` (`apps.work.`, or an account's `accounts[0].`), and the
    rest."""
    fields: dict[str, str] = {}
    others: list[str] = []
    for finding in error.findings:
        text = f"{finding.problem[0].upper()}{finding.problem[1:]}; {finding.remedy}."
        key = re.match(r"\w+", finding.key.removeprefix(inside))
        if finding.severity != "error":
            continue
        if key and finding.key.startswith(inside) and finding.file.parent.name == "conf.d":
            fields.setdefault(key[0], text)
        else:
            others.append(text)
    return fields, others


def _given(values: Mapping[str, Value]) -> dict[str, Value]:
    """Without what is empty: its default holds."""
    return {key: value for key, value in values.items() if value not in (None, "", [], ())}
