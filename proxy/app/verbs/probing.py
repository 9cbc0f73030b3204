"""The verbs `doctor` and `account test`: look, say as it comes, and end with an exit code that a script can read."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from proxy import config as configuration
from proxy.app.answers import EXIT_FAILED, EXIT_SIGN_IN_NEEDED, EXIT_USAGE
from proxy.app.counter import Counter
from proxy.app.doctor import bundle
from proxy.app.doctor import configuration as files
from proxy.app.doctor.examination import Looking, examine
from proxy.app.doctor.findings import Finding, Verdict, plain, summary, told, worst
from proxy.app.doctor.mailbox import NAMES, judge
from proxy.app.doctor.scene import Ask, survey
from proxy.app.verbs.lookup import find_account, find_config
from proxy.config import Config

_ERASE = "\r\x1b[K"  # the terminal's line (ECMA-48 EL)


def doctor(options: Namespace) -> int:
    """Every check. 0: nothing failed; 1: something did; 2: the configuration does not hold; 3: only sign-ins lack."""
    with ExitStack() as stack:

        def beside(config: Config) -> Ask:
            return stack.enter_context(Counter(config)).ask

        file = configuration.locate(options.config, os.environ)
        scene = survey(file, os.environ, options.login, beside)
        findings = []
        for step in _shown(examine(scene), quiet=options.json):
            findings.append(step)
            if not options.json:
                print(told(step), flush=True)
        if options.bundle:
            written = bundle.write(Path(options.bundle), scene, findings)
    if options.json:
        document: dict[str, Any] = {"verdict": worst(findings).value, "findings": [plain(each) for each in findings]}
        print(json.dumps(document, indent=2))
    else:
        print(f"\n{summary(findings)}")
    if options.bundle:
        print(f"A report without names and secrets is in {written}; read it before you hand it on.", file=sys.stderr)
    return _exit_code(findings)


def account_test(options: Namespace) -> int:
    """IMAP, POP3 and sending, each tried once. 0: all work; 1: one does not; 2: settings; 3: somebody must sign in."""
    config = find_config(options)
    account = find_account(config, options.login)
    tests: list[dict[str, Any]] = []
    findings: list[Finding] = []
    exit_code = 0
    with Counter(config) as counter:
        for number, protocol in enumerate(account.protocols, 1):
            with _Progress(f"{NAMES[protocol]} ({number} of {len(account.protocols)})", quiet=options.json):
                answer = counter.ask("probe", login=account.name, protocol=protocol)
            finding = judge(account, protocol, answer)
            findings.append(finding)
            tests.append({"protocol": protocol, **plain(finding), "took_ms": answer.get("took_ms")})
            if not options.json:
                print(told(finding), flush=True)
            exit_code = exit_code or _code_of(answer)
            if answer.get("step") == "token":
                break  # no token for one means none for the others
    untried = [protocol for protocol in account.protocols if protocol not in [test["protocol"] for test in tests]]
    if options.json:
        document = {"login": account.name, "verdict": worst(findings).value, "tests": tests, "not_tried": untried}
        print(json.dumps(document, indent=2))
    else:
        if untried:
            print(f"Not tried for the same reason: {', '.join(NAMES[each] for each in untried)}.")
        print("All of it works." if exit_code == 0 else f"\nMore: mailferry doctor {account.name}")
    return exit_code


def _code_of(answer: dict[str, Any]) -> int:
    if answer["ok"]:
        return 0
    if answer["refusal"] == "sign_in_needed" and answer.get("state") != "authentication_error":
        return EXIT_SIGN_IN_NEEDED
    return EXIT_USAGE if answer["step"] == "token" and answer["refusal"] == "misconfigured" else EXIT_FAILED


def _exit_code(findings: list[Finding]) -> int:
    failed = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    if any(finding.check == files.FILES for finding in failed):
        return EXIT_USAGE
    if failed and all(finding.sign_in for finding in failed):
        return EXIT_SIGN_IN_NEEDED
    return EXIT_FAILED if failed else 0


def _shown(steps: Iterator[Looking | Finding], *, quiet: bool) -> Iterator[Finding]:
    """The findings; what is looked at meanwhile stands on the terminal's last line."""
    progress = _Progress("", quiet=quiet)
    for step in steps:
        progress.clear()
        if isinstance(step, Finding):
            yield step
        else:
            progress.say(f"({step.number} of {step.of}) looking at {step.what} ...")
    progress.clear()


class _Progress:
    """A line on standard error that goes away again; nothing where that is no terminal."""

    def __init__(self, text: str, *, quiet: bool) -> None:
        self._text = text
        self._shows = sys.stderr.isatty() and not quiet
        self._stands = False

    def __enter__(self) -> None:
        self.say(f"trying {self._text} ...")

    def __exit__(self, *_: object) -> None:
        self.clear()

    def say(self, text: str) -> None:
        if self._shows:
            print(text, end="", file=sys.stderr, flush=True)
            self._stands = True

    def clear(self) -> None:
        if self._stands:
            print(_ERASE, end="", file=sys.stderr, flush=True)
            self._stands = False
