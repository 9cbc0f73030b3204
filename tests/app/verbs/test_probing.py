"""The verbs `doctor` and `account test` on a home: `probing.py`. `end_to_end/test_doctor.py` has real servers."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from proxy.app.doctor.examination import Looking
from proxy.app.doctor.findings import Finding, Verdict, fail, ok
from proxy.app.verbs import probing
from proxy.login import Fault
from tests.app.doctor.test_grant import NO
from tests.app.doctor.test_mailbox import BUSY, REFUSED, YES
from tests.app.home import ALICE, Home

GOOD = ok("clock", "Clock", "It agrees.")
BAD = fail("tls", "IMAP", "It refuses.", Fault.NETWORK, "Ask.")
UNHELD = fail("configuration", "Configuration", "It does not hold.", Fault.MAILFERRY, "Mend it.")
UNSIGNED = Finding("sign_in", Verdict.FAIL, "Sign-in", "Nobody.", Fault.CLIENT, "Sign in.", "user", (), True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def found(*findings: Finding) -> Any:
    """In place of the checks."""

    def examine(scene: object) -> Iterator[Looking | Finding]:
        yield Looking("something", 1, 1)
        yield from findings

    return mock.patch.object(probing, "examine", examine)


@pytest.mark.parametrize(
    ("findings", "exit_code"),
    [
        ((GOOD,), 0),
        ((GOOD, BAD), 1),
        ((BAD, UNHELD), 2),
        ((GOOD, UNSIGNED), 3),
        ((UNSIGNED, BAD), 1),
    ],
)
def test_the_doctors_exit_code(home: Home, findings: tuple[Finding, ...], exit_code: int) -> None:
    with found(*findings):
        told = home.run("doctor", exit_code=exit_code)
        document = json.loads(home.run("doctor", "--json", exit_code=exit_code).output)
    assert "looking at" not in told.output + told.errors, "progress is for a terminal"
    assert [each["check"] for each in document["findings"]] == [each.check for each in findings]
    assert document["verdict"] == ("ok" if exit_code == 0 else "fail")


def test_a_terminal_sees_progress_that_goes_away(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    steps = probing._shown(iter([Looking("something", 1, 1), GOOD]), quiet=False)
    assert list(steps) == [GOOD]
    assert terminal.getvalue() == "(1 of 1) looking at something ...\r\x1b[K"
    list(probing._shown(iter([Looking("something", 1, 1)]), quiet=True))
    assert terminal.getvalue().count("looking") == 1


def test_a_bundle(home: Home) -> None:
    file = home.folder / "report.txt"
    with found(BAD):
        told = home.run("doctor", "--bundle", str(file), exit_code=1)
        document = json.loads(home.run("doctor", "--json", "--bundle", str(file), exit_code=1).output)
    assert str(file) in told.errors
    assert "read it before you hand it on" in told.errors
    assert document["verdict"] == "fail"
    assert "FAIL  IMAP: It refuses." in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with found(BAD):
        assert "cannot be written" in home.run("doctor", "--bundle", "/proc/x/y", exit_code=2).errors


def test_a_broken_configuration_is_examined_all_the_same(home: Home) -> None:
    home.file.write_text("typo: 1\n")
    document = json.loads(home.run("doctor", "--json", exit_code=2).output)
    assert "typo" in json.dumps(document["findings"][0])
    assert len({each["check"] for each in document["findings"]}) > 3


# --- account test


def answers(*replies: dict[str, Any]) -> Any:
    """In place of the desk's."""
    return mock.patch("proxy.app.counter.Counter.ask", side_effect=replies)


@pytest.mark.parametrize(
    ("replies", "exit_code", "verdicts"),
    [
        ((YES, YES, YES), 0, ["ok", "ok", "ok"]),
        ((REFUSED, YES, YES), 1, ["fail", "ok", "ok"]),
        ((YES, YES, BUSY), 1, ["ok", "ok", "warn"]),
        (({**NO, "refusal": "sign_in_needed", "state": "sign_in_needed"},), 3, ["fail"]),
        (({**NO, "refusal": "sign_in_needed", "state": "signing_in"},), 3, ["warn"]),
        (({**NO, "refusal": "sign_in_needed", "state": "authentication_error"},), 1, ["fail"]),
        (({**NO, "refusal": "misconfigured"},), 2, ["fail"]),
        (({**NO, "refusal": "try_later"},), 1, ["fail"]),
    ],
)
def test_account_tests_exit_code(
    furnished: Home, replies: tuple[dict[str, Any], ...], exit_code: int, verdicts: list[str]
) -> None:
    with answers(*replies):
        document = json.loads(furnished.run("account", "test", ALICE, "--json", exit_code=exit_code).output)
    assert [test["verdict"] for test in document["tests"]] == verdicts
    assert [test["protocol"] for test in document["tests"]] == ["imap", "pop3", "smtp"][: len(verdicts)]
    assert document["not_tried"] == ["imap", "pop3", "smtp"][len(verdicts) :]
    assert document["login"] == ALICE


def test_account_test_in_words(furnished: Home) -> None:
    with answers(YES, YES, YES):
        told = furnished.run("account", "test", ALICE)
    assert told.output.endswith("All of it works.\n")
    with answers(REFUSED, YES, YES):
        told = furnished.run("account", "test", ALICE, exit_code=1)
    assert f"More: mailferry doctor {ALICE}" in told.output
    with answers(NO):
        told = furnished.run("account", "test", ALICE, exit_code=2)
    assert "Not tried for the same reason: POP3, Sending." in told.output


def test_only_the_accounts_own_protocols(furnished: Home) -> None:
    furnished.add_account("reader@contoso.com", "--app", "work", "--protocols", "imap")
    with answers(YES):
        document = json.loads(furnished.run("account", "test", "reader@contoso.com", "--json").output)
    assert [test["protocol"] for test in document["tests"]] == ["imap"]


def test_an_account_that_is_not_there(home: Home) -> None:
    assert "no account" in home.run("account", "test", "nobody", exit_code=2).errors
