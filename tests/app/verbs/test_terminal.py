"""Questions to a person at a real terminal, and tables."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from proxy.accounts.passwords import verify_hash
from proxy.app.verbs.terminal import print_table, shown
from tests.app.home import ALICE, APPLICATION_ID, SECRET, Home

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


class Terminal:
    """A command on a terminal, and what stands on its screen."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._end, command_end = pty.openpty()
        environment = {**os.environ, "TERM": "xterm"}
        termios.tcsetwinsize(self._end, (25, 400))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "--config", str(home.file), *arguments],
            stdin=command_end,
            stdout=command_end,
            stderr=command_end,
            start_new_session=True,
            cwd=ROOT,
            env={name: value for name, value in environment.items() if name not in ("DISPLAY", "BROWSER")},
        )
        os.close(command_end)
        self.screen = ""

    def read(self, text: str) -> None:
        """Until this stands behind what was read before."""
        seen = len(self.screen)
        while text not in self.screen[seen:]:
            assert self._more(), f"it ended without {text!r}: {self.screen}"

    def type(self, line: str, *, hidden: bool = False) -> None:
        """A line. A hidden question has first switched the echo off."""
        end_s = time.monotonic() + PATIENCE_S
        while hidden and termios.tcgetattr(self._end)[3] & termios.ECHO:
            assert time.monotonic() < end_s, "what is typed would be seen"
            time.sleep(0.01)
        octets = f"{line}\n".encode()
        while octets:
            octets = octets[os.write(self._end, octets[:1024]) :]

    def interrupt(self) -> None:
        """As Ctrl-C does at the terminal that a session belongs to."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        while self._more():
            pass
        return self._process.wait(PATIENCE_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)

    def _more(self) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        assert poll.poll(PATIENCE_S * 1_000), f"it hangs: {self.screen}"
        try:
            said = os.read(self._end, 65_536)
        except OSError:  # Linux's end of a terminal
            return False
        self.screen += said.decode(errors="replace").replace("\r\n", "\n")
        return bool(said)


def test_app_add_asks_what_is_missing(home: Home) -> None:
    with closing(Terminal(home, "app", "add", "work")) as terminal:
        terminal.read("Application (client) ID")
        terminal.type("")
        terminal.read("Application (client) ID")
        terminal.type(f" {APPLICATION_ID} ")
        terminal.read("Who signs in?")
        terminal.type("")
        terminal.read("Client secret's Value")
        terminal.type(SECRET, hidden=True)
        assert terminal.end() == 0, terminal.screen
    assert yaml.safe_load(home.written("app-work.yaml")) == {
        "apps": {"work": {"application_id": APPLICATION_ID, "account_types": "organizations", "client_secret": SECRET}}
    }
    assert SECRET not in terminal.screen
    assert "Next: mailferry account add LOGIN" in terminal.screen


def test_no_secret_is_none(home: Home) -> None:
    with closing(Terminal(home, "app", "add", "work", "--account-types", "common")) as terminal:
        terminal.read("Application (client) ID")
        terminal.type(APPLICATION_ID)
        terminal.read("Client secret's Value")
        terminal.type("", hidden=True)
        assert terminal.end() == 0, terminal.screen
    assert "client_secret" not in home.written("app-work.yaml")
    assert "Who signs in?" not in terminal.screen


def test_a_person_who_ends_the_input_has_changed_nothing(home: Home) -> None:
    with closing(Terminal(home, "app", "add", "work")) as terminal:
        terminal.read("Application (client) ID")
        terminal.type("\x04")
        assert terminal.end() == 130
    assert "Interrupted." in terminal.screen
    assert "Traceback" not in terminal.screen
    assert not (home.folder / "conf.d" / "app-work.yaml").exists()


def test_a_password_to_hash_is_not_seen(home: Home) -> None:
    with closing(Terminal(home, "password", "--hash")) as terminal:
        terminal.read("Password: ")
        terminal.type(SECRET, hidden=True)
        assert terminal.end() == 0
    assert SECRET not in terminal.screen
    (phc,) = re.findall(r"^\$scrypt\S+$", terminal.screen, re.MULTILINE)
    assert verify_hash(SECRET.encode(), phc)


@pytest.fixture
def at_paste(furnished: Home) -> Iterator[Terminal]:
    with closing(Terminal(furnished, "sign-in", ALICE, "--paste")) as terminal:
        terminal.read("Address: ")
        yield terminal


def test_an_address_longer_than_a_terminals_line_can_be_pasted(at_paste: Terminal) -> None:
    (state,) = set(re.findall(r"[?&]state=([^&\s]+)", at_paste.screen))
    at_paste.type(f"http://localhost/?error=access_denied&error_description={'x' * 6000}&state={state}")
    assert at_paste.end() == 1
    assert "not belong" not in at_paste.screen, "the state at its end has come through"


def test_interrupting_a_sign_in(at_paste: Terminal) -> None:
    at_paste.interrupt()
    at_paste.type("")  # for the case that it was about to wait for a key, and did not notice
    assert at_paste.end() == 130, at_paste.screen
    assert "Traceback" not in at_paste.screen


# --- tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (False, "no"), (["imap", "smtp"], "imap, smtp"), ([], ""), (0, "0"), ("x", "x")],
)
def test_a_value_as_a_person_reads_it(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"login": "a", "last_error": None, "unused": 1},
        {"login": "longer", "last_error": "No.", "unused": 2},
    ]
    print_table(rows, ("login", "last_error"), "None.")
    assert capsys.readouterr().out == "LOGIN   LAST ERROR\na       -\nlonger  No.\n"


def test_a_table_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], ("login",), "None.")
    assert capsys.readouterr().out == "None.\n"
