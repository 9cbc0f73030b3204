"""Carries out what was planned from another program's files: apps and accounts into conf.d, tokens into the store.

An account is written whole or not at all; what is there already stays as it is. A mail program's password that opened
its tokens stays its local password, so that the program needs no change. What it is not: the reading of files
(`importing/`), or what a person is asked and told (`moving_in.py`), which calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from proxy.accounts.passwords import generate_password, hash_password
from proxy.app.answers import DeskError
from proxy.app.counter import Counter
from proxy.app.importing.found import Verdict
from proxy.app.importing.planning import (
    Outcome,
    Plan,
    PlannedAccount,
    PlannedApp,
    kept_password,
    sign_in_first,
    there,
)
from proxy.app.registry import Registry
from proxy.config import ConfigurationError, Value, write_account
from proxy.login import LoginRefused

NOT_SIGNED_IN = ("sign_in_needed", "signing_in")


def carry_out(plan: Plan, registry: Registry, counter: Counter) -> Iterator[Outcome]:
    """Write what is planned, hand the tokens over at the counter; each outcome as it comes.

    Raises:
        DeskError, StateFolderHeld, StoreError, KeyUnusable: nobody can take the tokens. Nothing is written; or, if it
            comes later, what is written stays, and a second run goes on from there.
    """
    if any(account.opened.refresh_token for account in plan.accounts):
        counter.ask("accounts")  # if nobody can take the tokens, nothing is written
    yield from plan.refused
    written: list[PlannedAccount] = []
    used: set[str] = set()
    broken: dict[str, str] = {}
    for app in plan.apps:
        outcome = _write_app(app, registry)
        if outcome.failed:
            broken[app.name] = outcome.text
        yield outcome
    for account in plan.accounts:
        outcome = _write_account(account, registry, broken.get(account.app, ""))
        if not outcome.failed:
            written.append(account)
            used.add(account.app)
        yield outcome
    meant = {account.app for account in plan.accounts}
    for app in plan.apps:
        if app.name in meant - used and not app.is_there and app.name not in broken:
            registry.remove_app(app.name)  # no account came with it
            yield Outcome("app", app.name, Verdict.NOT_TAKEN, "removed again: no account could be written with it")
    counter.reload()
    yield from _hand_over(written, registry, counter)


def _write_app(app: PlannedApp, registry: Registry) -> Outcome:
    if app.is_there:
        return there("app", app.name)
    try:
        file = registry.add_app(app.name, app.keys)
    except ConfigurationError as error:
        return Outcome("app", app.name, Verdict.NOT_TAKEN, _problems(error), failed=True)
    return Outcome("app", app.name, Verdict.TAKEN, f"is written to {file}")


def _write_account(account: PlannedAccount, registry: Registry, broken: str) -> Outcome:
    if account.is_there:
        return there("account", account.login)
    if broken:
        text = f"its app {account.app} could not be written"
        return Outcome("account", account.login, Verdict.NOT_TAKEN, text, failed=True)
    kept = kept_password(account)
    password = kept or generate_password()
    try:
        keys: dict[str, Value] = {**account.keys, "password": hash_password(password)}
        file = write_account(registry.main, keys, registry.environ)
    except ConfigurationError as error:
        return Outcome("account", account.login, Verdict.NOT_TAKEN, _problems(error), failed=True)
    if kept:
        text = f"is written to {file}; the mail program keeps its password"
        return Outcome("account", account.login, Verdict.TAKEN, text)
    text = f"is written to {file}; type its new local password, shown this once, into the mail program"
    return Outcome("account", account.login, Verdict.OTHERWISE, text, password)


def _hand_over(accounts: Sequence[PlannedAccount], registry: Registry, counter: Counter) -> Iterator[Outcome]:
    """The tokens of these accounts, which are written; and what each of the others goes on with."""
    for account in accounts:
        if not account.opened.refresh_token and not account.is_there and not account.app_only:
            yield sign_in_first(account.login, "no token was opened: sign in once")
    ready = [account for account in accounts if account.opened.refresh_token]
    if not ready:
        return
    waiting = signed_out(counter)
    for account in ready:
        if account.is_there and account.login.casefold() not in waiting:
            yield Outcome("token", account.login, Verdict.TAKEN, "is signed in already; its tokens stay")
            continue
        answer = _adopt(account, counter)
        yield answer if isinstance(answer, Outcome) else _adopt_for(account, answer, registry, counter)


def signed_out(counter: Counter) -> set[str]:
    """The folded logins of accounts that nobody is signed in for."""
    rows = counter.ask("accounts")["accounts"]
    return {str(row["login"]).casefold() for row in rows if row["state"] in NOT_SIGNED_IN}


def _adopt(account: PlannedAccount, counter: Counter) -> Outcome | str:
    """The outcome; or who else the token belongs to."""
    try:
        answer = counter.ask("adopt_refresh_token", login=account.login, refresh_token=account.opened.refresh_token)
    except (DeskError, LoginRefused) as error:
        text = error.text if isinstance(error, DeskError) else str(error)
        return replace(sign_in_first(account.login, f"Microsoft refused it. {text}"), failed=True)
    if "belongs_to" in answer:
        return str(answer["belongs_to"])
    return Outcome("token", account.login, Verdict.TAKEN, f"Microsoft took it: signed in as {answer['signed_in']}")


def _adopt_for(account: PlannedAccount, person: str, registry: Registry, counter: Counter) -> Outcome:
    """A shared mailbox's: another person signed in for it, and does from now on."""
    try:
        registry.change_account(account.login, {"sign_in": person})
    except ConfigurationError as error:
        return sign_in_first(account.login, f"the token is {person}'s, and so it was not taken: {_problems(error)}")
    counter.reload()
    outcome = _adopt(account, counter)
    if isinstance(outcome, str):
        return sign_in_first(account.login, f"the token is {outcome}'s")
    remark = f"{outcome.text}; a shared mailbox, so sign_in: {person} stands in the account now"
    return outcome if outcome.failed else replace(outcome, verdict=Verdict.OTHERWISE, text=remark)


def _problems(error: ConfigurationError) -> str:
    return "; ".join(str(finding) for finding in error.findings if finding.severity == "error")
