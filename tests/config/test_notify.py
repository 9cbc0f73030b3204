"""The key `notify`: a command as a list, a webhook as a secret, and what is wrong with others."""

from __future__ import annotations

import sys

import pytest

from proxy.config.settings import Notify, Secret
from tests.config.conftest import Folder

HOOK = "https://chat.example.com/hooks/1234"


def test_nobody_is_told_by_default(folder: Folder) -> None:
    assert folder.config("").notify == Notify()


def test_a_command_and_a_webhook(folder: Folder) -> None:
    config = folder.config(f"notify:\n  command: [{sys.executable}, -c, pass]\n  webhook: {HOOK}\n")
    assert config.notify == Notify((sys.executable, "-c", "pass"), Secret(HOOK))
    assert HOOK not in repr(config)


def test_the_address_may_come_from_elsewhere(folder: Folder) -> None:
    folder.write("hook", f"{HOOK}\n")
    assert folder.config("notify: {webhook: {file: hook}}").notify.webhook == Secret(HOOK)
    assert folder.config("notify: {webhook: 'http://localhost:8065/x'}").notify.webhook is not None


@pytest.mark.parametrize(
    ("notify", "key", "problem"),
    [
        ("{command: []}", "command", "is an empty list"),
        ("{command: notify-send}", "command", "does not begin with a whole path"),
        ("{webhook: 'http://chat.example.com/x'}", "webhook", "is not an https address"),
        ("{webhook: 'https://[::1/x'}", "webhook", "is not an https address"),
        ("{webhook: 'https://host:port/x'}", "webhook", "is not an https address"),
        ("{webhook: {file: http}}", "webhook", "is not an https address, where it comes from"),
        ("{hook: x}", "hook", "unknown key"),
        ("yes", "", "is a single value"),
    ],
)
def test_what_is_refused(folder: Folder, notify: str, key: str, problem: str) -> None:
    folder.write("http", "http://chat.example.com/x")
    finding = folder.finding(f"notify: {notify}\n")
    assert (finding.severity, finding.key, finding.problem) == ("error", f"notify.{key}".strip("."), problem)
    assert "chat.example.com" not in str(finding)


def test_a_program_that_is_not_there_is_told(folder: Folder) -> None:
    finding = folder.finding("notify: {command: [/nowhere/tell]}")
    assert (finding.severity, finding.problem) == ("warning", "/nowhere/tell is no program that mailferry can run")


def test_it_stands_in_the_main_file(folder: Folder) -> None:
    folder.write("conf.d/x.yaml", f"notify: {{webhook: {HOOK}}}\n")
    assert folder.finding("").key == "notify"
