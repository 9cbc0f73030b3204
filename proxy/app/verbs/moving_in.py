"""The verb `import`: takes over what email-oauth2-proxy, sasl-xoauth2 or DavMail were told, and says what it left.

It asks for the passwords that open sealed tokens, at the terminal or from standard input, never as an argument. The
work is done by `importing/` and `takeover.py`.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.app.answers import EXIT_FAILED
from proxy.app.counter import Counter
from proxy.app.importing.found import Found, FoundAccount, Judged, Verdict
from proxy.app.importing.gathering import Gathered, NothingFound, gather
from proxy.app.importing.planning import Opened, Outcome, Plan, foresee, listener_lines, open_account, plan
from proxy.app.registry import Registry
from proxy.app.takeover import carry_out, signed_out
from proxy.app.verbs.lookup import find_config, find_main_file
from proxy.app.verbs.terminal import UsageError, read_line
from proxy.config import Config

MAX_TRIES = 3  # of a password at the terminal, for each account


def import_(options: Namespace) -> int:
    try:
        gathered = gather([Path(path) for path in options.files], options.kind)
    except NothingFound as nothing:
        raise UsageError(str(nothing)) from None
    config = find_config(options)
    if options.app and options.app not in config.apps:
        raise UsageError(f"There is no app {options.app!r}. `mailferry app list` shows those there are.")
    found = gathered.read()
    if not options.json:
        _show_lines(gathered, found)
    lines = listener_lines(found, config, config.file.read_text(errors="replace") if config.file else "")
    outcomes: list[Outcome] = []

    def show() -> None:
        if options.json:
            print(json.dumps(_as_json(gathered, found, outcomes, lines, dry_run=options.dry_run), indent=2))
        else:
            _show_outcomes(outcomes, lines, dry_run=options.dry_run)

    try:
        for outcome in _work(options, found, config):
            outcomes.append(outcome)
    except BaseException:
        if outcomes:  # there may be a new local password among them
            show()
        raise
    show()
    if any(outcome.failed for outcome in outcomes):
        return EXIT_FAILED
    if all(outcome.kind == "token" or outcome.verdict is Verdict.NOT_TAKEN for outcome in outcomes):
        raise UsageError("No app and no account of Microsoft's stands there, so nothing was taken over.")
    return 0


def _work(options: Namespace, found: Sequence[Found], config: Config) -> Iterator[Outcome]:
    keyring = _Keyring(from_stdin=options.passwords_stdin)
    ca_file = Path(options.ca_file).absolute() if options.ca_file else None

    def planned(signed_out: set[str]) -> Plan:
        opened = keyring.open(_new_accounts(found, config, signed_out))
        return plan(found, config, opened, app=options.app, ca_file=ca_file)

    if options.dry_run:  # it opens no store, and so takes those that are here for signed in
        foreseen = planned(set())
        yield from keyring.outcomes
        yield from foresee(foreseen)
        return
    registry = Registry(find_main_file(options), os.environ)
    with Counter(config, registry.read) as counter:
        here = any(config.account(account.login) for each in found for account in each.accounts)
        to_do = planned(signed_out(counter) if here else set())
        yield from keyring.outcomes
        yield from carry_out(to_do, registry, counter)


def _new_accounts(found: Sequence[Found], config: Config, signed_out: set[str]) -> list[FoundAccount]:
    """Those whose tokens are wanted: that are not here, or that nobody is signed in for."""
    accounts = [account for each in found for account in each.accounts]
    return [one for one in accounts if config.account(one.login) is None or one.login.casefold() in signed_out]


class _Keyring:
    """Opens accounts with the passwords of a person. A password that fitted one is tried on the others too."""

    def __init__(self, *, from_stdin: bool) -> None:
        self._from_stdin = from_stdin
        self._passwords: list[str] = []
        self.outcomes: list[Outcome] = []
        """What could not be opened, and why."""

    def open(self, accounts: Iterable[FoundAccount]) -> Mapping[str, Opened]:
        """By folded login."""
        opened: dict[str, Opened] = {}
        for account in accounts:
            if account.login.casefold() not in opened:
                one = self._open(account) if account.sealed else open_account(account, "")
                if one is not None:
                    opened[account.login.casefold()] = one
        return opened

    def _open(self, account: FoundAccount) -> Opened | None:
        if not self._from_stdin and not sys.stdin.isatty():
            text = "its tokens are sealed: run this at a terminal, or pipe the mail programs' passwords, one a line in"
            self._tell(account, f"{text} the order of the accounts, with --passwords-stdin", failed=False)
            return None
        for password in self._passwords:
            if one := open_account(account, password):
                if self._from_stdin:
                    self._read(account)  # its own line
                return one
        for _ in range(1 if self._from_stdin else MAX_TRIES):
            password = self._read(account)
            if not password:
                self._tell(account, "no password was given: its tokens stay sealed", failed=False)
                return None
            if one := open_account(account, password):
                self._passwords.append(password)
                return one
            if not self._from_stdin:
                print("That password does not open them.", file=sys.stderr)
        self._tell(account, "the password does not open its tokens, so it is not the one the mail program sends", True)
        return None

    def _read(self, account: FoundAccount) -> str:
        prompt = f"The password that the mail program sends for {account.login} (it opens the tokens; empty: without): "
        return read_line(prompt, hidden=True)

    def _tell(self, account: FoundAccount, text: str, failed: bool) -> None:
        self.outcomes.append(Outcome("token", account.login, Verdict.NOT_TAKEN, text, failed=failed))


# --- what is said


def _show_lines(gathered: Gathered, found: Sequence[Found]) -> None:
    for file, why in gathered.passed_over:
        print(f"{file}: {why}")
    for each in found:
        for file in dict.fromkeys(judged.file for judged in each.judged):
            print(f"\n{each.program}: {file}")
            _show_verdicts([judged for judged in each.judged if judged.file == file])


def _show_verdicts(judged: Sequence[Judged]) -> None:
    subject = max(len(_shown(one.subject)) for one in judged)
    verdict = max(len(one.verdict.value) for one in judged)
    for one in judged:
        print(f"{one.line:>5}  {_shown(one.subject):{subject}}  {one.verdict.value:{verdict}}  {_shown(one.text)}")


def _show_outcomes(outcomes: Sequence[Outcome], lines: Sequence[str], *, dry_run: bool) -> None:
    print("\nWhat would become of it; nothing is written:" if dry_run else "\nWhat became of it:")
    for outcome in outcomes:
        print(f"  {outcome.kind} {_shown(outcome.name)}: {outcome.verdict.value}. {_shown(outcome.text)}.")
        if outcome.password:
            print(f"\n    {outcome.password}\n")
    if lines:
        where = "put this into" if lines[0] == "listeners:" else "add these lines below `listeners:` in"
        print("\nSo that mail programs find mailferry where they found the old program: stop that one, and")
        print(f"{where} the main configuration file.\n")
        print("\n".join(lines))
    commands = dict.fromkeys(outcome.next for outcome in outcomes if outcome.next)
    if commands and not dry_run:
        print("\nNext:")
        print("\n".join(f"  {_shown(command)}" for command in commands))


def _shown(text: str) -> str:
    """One line, whatever stands in a stranger's file."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _as_json(
    gathered: Gathered, found: Sequence[Found], outcomes: Sequence[Outcome], lines: Sequence[str], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "passed_over": [{"file": str(file), "reason": why} for file, why in gathered.passed_over],
        "lines": [
            {
                "program": each.program,
                "file": str(judged.file),
                "line": judged.line,
                "last_line": judged.last_line,
                "subject": judged.subject,
                "verdict": judged.verdict.value,
                "text": judged.text,
            }
            for each in found
            for judged in each.judged
        ],
        "outcomes": [
            {
                "kind": outcome.kind,
                "name": outcome.name,
                "verdict": outcome.verdict.value,
                "text": outcome.text,
                "failed": outcome.failed,
                "next": outcome.next,
                **({"password": outcome.password} if outcome.password else {}),
            }
            for outcome in outcomes
        ],
        "listeners": list(lines),
    }
