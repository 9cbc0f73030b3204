"""The command line as such: its verbs and options, and how an error ends."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import __version__
from proxy.app import cli
from proxy.app.answers import DeskError
from proxy.app.verbs.terminal import UsageError
from proxy.config import ConfigurationError
from proxy.config.findings import refusal
from tests.app.home import Home

ROOT = Path(__file__).parents[2]
VERBS = (
    "serve",
    "reload",
    "demo",
    "check",
    "app add",
    "app list",
    "app change",
    "app remove",
    "account add",
    "account list",
    "account show",
    "account change",
    "account remove",
    "account test",
    "sign-in",
    "sign-out",
    "doctor",
    "password",
    "settings",
    "ca",
    "administrator",
    "import",
    "log",
    "key rotate",
    "backup",
    "restore",
    "page",
)
"""PRODUCT section 2, as far as there are."""


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name.strip(), parser
    for group in groups:
        for verb, child in group.choices.items():
            yield from parsers(child, f"{name} {verb}")


def needed(verb: str) -> Iterator[str]:
    """Something for everything that must be given."""
    for action in dict(parsers(cli.parser()))[verb]._actions:
        if not action.option_strings and action.nargs in (None, "+"):
            yield "alice"
        elif action.required and action.nargs is None:
            yield from (action.option_strings[0], next(iter(action.choices or ("x",))))


def test_these_are_the_verbs() -> None:
    assert tuple(name for name, _ in parsers(cli.parser())) == VERBS


def ended(*arguments: str) -> tuple[int, str, str]:
    """How argparse ends by itself."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        cli.run(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code, output.getvalue(), errors.getvalue()


@pytest.mark.parametrize("verb", ["", "app", "account", *VERBS])
def test_help_has_an_example(verb: str) -> None:
    code, said, _ = ended(*verb.split(), "--help")
    assert code == 0
    assert f"usage: mailferry {verb}".strip() in said
    assert "--config FILE" in said
    assert f"mailferry {verb}".strip() in said.split("options:")[1].replace("\n", " "), "an example"


@pytest.mark.parametrize("verb", VERBS)
def test_the_configuration_is_named_before_or_after_the_verb(verb: str) -> None:
    words = verb.split()
    arguments = [*words, *needed(verb)]
    for given in (
        ["--config", "X", *arguments],
        [*arguments, "--config", "X"],
        [*words, "--config=X", *arguments[len(words) :]],
    ):
        assert cli.parser().parse_args(given).config == Path("X")
    assert cli.parser().parse_args(["--config", "X", *arguments, "--config", "Y"]).config == Path("Y")
    assert cli.parser().parse_args(arguments).config is None


def test_the_version() -> None:
    assert ended("--version") == (0, f"mailferry {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "VERB"),
        ("nonsense", "nonsense"),
        ("app", "VERB"),
        ("account add", "LOGIN"),
        ("account add a@b --protocols imap,ftp", "'imap,ftp' is not a list of imap, pop3, smtp"),
        ("account add a@b --protocols ,", "',' is not a list"),
        ("sign-in a@b --device --paste", "not allowed with"),
        ("app add work --cloud mars", "global"),
        ("list --frobnicate", "list"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: str, said: str) -> None:
    code, output, errors = ended(*arguments.split())
    assert (code, output) == (2, "")
    assert said in errors


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("Give it."), 2, "mailferry: Give it.\n"),
        (DeskError("It failed."), 1, "mailferry: It failed.\n"),
        (DeskError("Unknown.", 2), 2, "mailferry: Unknown.\n"),
        (refusal(Path("c.yaml"), "is wrong", "mend it", line=3), 2, "mailferry: c.yaml:3: is wrong; mend it\n"),
        (
            ConfigurationError([*refusal(Path("a"), "x", "y").findings, *refusal(Path("b"), "x", "y").findings]),
            2,
            "a:1: x; y\nb:1: x; y\n",
        ),
        (KeyboardInterrupt(), 130, "mailferry: Interrupted.\n"),
        (EOFError(), 130, "mailferry: Interrupted.\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_a_line_on_standard_error(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr("proxy.app.verbs.configuring.app_list", fail)
    told = home.run("app", "list", exit_code=code)
    assert (told.output, told.errors) == ("", said)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_names_its_function(verb: str) -> None:
    """It is looked up when it is called."""
    named = dict(parsers(cli.parser()))[verb].get_default("command")
    assert callable(cli._command(named)), named


def mailferry(*arguments: str, stdout: int) -> tuple[int, str]:
    command = [sys.executable, "-m", "proxy", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment, timeout=60, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture
def broken_pipe() -> Iterator[int]:
    """Nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def test_a_reader_that_has_left_is_no_error_to_tell(broken_pipe: int, home: Home) -> None:
    assert mailferry("--config", str(home.file), "app", "list", stdout=broken_pipe) == (1, "")
