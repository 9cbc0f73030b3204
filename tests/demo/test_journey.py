"""`mailferry demo`, as a newcomer runs it: by itself, kept open, gone wrong, and left early."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.page.visitor import Visitor
from tests.demo.demos import DEADLINE_S, Demo

STEPS = [
    "sign-in service up",
    "mailbox up",
    "configuration written",
    "daemon ready",
    "app added",
    "account added",
    "signed in",
    "read by IMAP, plain",
    "account connected",
    "read by IMAP, TLS",
    "read by POP3, plain",
    "sent by SMTP, STARTTLS",
    "read back by IMAP",
]
CLOSED = "The harbour is closed; nothing is left of it.\n"


READY = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[-1] == "serve":
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(60)
"""
"""A daemon that says it is ready, and hears no SIGTERM. What else is asked of mailferry goes on behind this."""


def changed(change: str) -> tuple[str, ...]:
    """`demo --once` with this change to its modules."""
    modules = "import sys, time; from proxy.demo import harbour, journey, program, round_trip"
    return (sys.executable, "-c", f"{modules}\n{change}\nsys.exit(journey.run(once=True))")


def with_command(code: str, start_limit_s: float = DEADLINE_S) -> tuple[str, ...]:
    """`demo --once` with this Python program in mailferry's place."""
    command = f"program.COMMAND = (sys.executable, '-c', {code!r})"
    return changed(f"{command}; program.START_LIMIT_S = {start_limit_s}; program.STOP_LIMIT_S = 0.5")


def test_once_makes_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--once")
    assert demo.end() == 0, demo.output + demo.errors
    assert re.findall(r"^  (\S.*?) +\d+\.\d\d s  \S", demo.output, re.MULTILINE) == STEPS
    assert "All 13 steps are well" in demo.output
    assert demo.output.endswith(CLOSED)
    assert demo.errors == ""
    assert demo.left == []


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("sys.exit(7)", "The daemon ended while starting, with exit code 7."),
        ("time.sleep(60)", "The daemon was not ready within 4 s."),
    ],
)
def test_a_broken_daemon_is_told_by_step_reason_and_log(tmp_path: Path, end: str, said: str) -> None:
    daemon = f"import sys, time; print('the sea is rough', flush=True); {end}"
    demo = Demo(tmp_path, command=with_command(daemon, start_limit_s=4.0))
    assert demo.end() == 1
    assert re.search(r"^  daemon ready +\d+\.\d\d s  FAILED$", demo.output, re.MULTILINE)
    assert "app added" not in demo.output
    assert demo.errors.startswith(f'\nThe step "daemon ready" failed. {said}\n')
    assert "The end of the daemon's log:\n\n  the sea is rough\n" in demo.errors
    assert "Traceback" not in demo.errors
    assert demo.output.endswith(CLOSED)
    assert demo.left == []


def test_a_refusing_command_is_told_in_its_own_words(tmp_path: Path) -> None:
    demo = Demo(tmp_path, command=with_command(f"{READY}\nsys.exit('mailferry: no such berth')"))
    assert demo.end() == 1
    assert demo.errors == '\nThe step "app added" failed. `mailferry app add` failed: mailferry: no such berth\n'
    assert demo.left == []


@pytest.mark.parametrize(
    ("step", "by"),
    [
        ("harbour.Harbour.open_sign_in_service", signal.SIGINT),
        ("harbour.Harbour.add_account", signal.SIGTERM),
        ("round_trip.RoundTrip.read_imap_tls", signal.SIGHUP),
    ],
)
def test_leaving_in_the_middle_of_a_step(tmp_path: Path, step: str, by: signal.Signals) -> None:
    demo = Demo(tmp_path, command=changed(f"{step} = lambda _: print('we lie here', flush=True) or time.sleep(60)"))
    demo.read("we lie here")
    assert demo.end(by) == 1
    assert demo.output.endswith(CLOSED)
    assert demo.errors == ""
    assert demo.left == []


def test_leaving_while_children_hang(tmp_path: Path) -> None:
    """The command `app add` does not end, and neither child hears SIGTERM."""
    demo = Demo(tmp_path, command=with_command(f"{READY}\ntime.sleep(60)"))
    demo.read("daemon ready")
    assert demo.end(signal.SIGINT) == 1
    assert demo.output.endswith(CLOSED)
    assert demo.left == []


def test_a_step_that_breaks_in_an_unforeseen_way_is_told_in_a_line(tmp_path: Path) -> None:
    demo = Demo(tmp_path, command=changed("harbour.Harbour.open_mailbox = lambda _: {}['anchor']"))
    assert demo.end() == 1
    assert demo.errors == "\nThe step \"mailbox up\" failed. KeyError: 'anchor'\n"
    assert demo.left == []


def test_without_a_temporary_folder_it_says_so(tmp_path: Path) -> None:
    demo = Demo(tmp_path, command=changed("harbour.tempfile.tempdir = '/no/such/sea'"))
    assert demo.end() == 1
    assert demo.errors.startswith("\nNo temporary folder can be made: ")
    assert "Traceback" not in demo.errors


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    demo.read("Ctrl-C closes the harbour")
    yield demo
    if demo.process.poll() is None:
        demo.end(signal.SIGTERM)
    assert demo.left == []


def test_what_is_printed_can_be_pasted(opened: Demo) -> None:
    """Every curl line as it stands."""
    lines = re.findall(r"^  (curl .*)$", opened.output, re.MULTILINE)
    shown = [_said(line) for line in lines]
    kinds = [(re.search(r"(\w+)://", line) or "")[1] for line in lines]
    assert kinds == ["imap", "pop3", "smtp", "imap", "imaps", "pop3s", "smtp"]
    subjects = [(re.search(r"^Subject: (.*?)\r?$", text, re.MULTILINE) or [None, ""])[1] for text in shown]
    welcome, second, ahoy = "Welcome to the practice harbour", "Write to anybody", "Ahoy from curl"
    assert subjects == [welcome, second, "", ahoy, welcome, second, ""]
    assert "Subject: Ahoy from curl" in _said(lines[3].replace("MAILINDEX=*", "MAILINDEX=5")), "sent with TLS"
    assert opened.end(signal.SIGINT) == 0
    assert opened.output.endswith(CLOSED)
    assert opened.errors == ""


def test_what_is_printed_is_there(opened: Demo) -> None:
    printed = dict(re.findall(r"^  (\w+(?: file)?)   +(\S.*)$", opened.output, re.MULTILINE))
    assert printed["server"] == "localhost"
    assert printed["login"] == "alice@practice.example"
    assert f"-u {printed['login']}:{printed['password']} " in opened.output
    assert "login accepted" not in Path(printed["log"]).read_text()
    assert "BEGIN CERTIFICATE" in Path(printed["CA file"]).read_text()
    assert opened.output.isascii(), "for every terminal"


def test_the_page_opens_by_its_link(opened: Demo) -> None:
    (link,) = re.findall(r"^  (http://localhost:\d+/open/\S+)$", opened.output, re.MULTILINE)
    visitor = Visitor(int(link.split(":")[2].partition("/")[0]))
    assert "From nothing to connected" in visitor.enter(link).words
    assert "alice@practice.example" in visitor.get("/accounts").words


def test_a_daemon_that_dies_ends_the_demo(opened: Demo) -> None:
    (daemon,) = opened.children
    os.kill(daemon, signal.SIGKILL)
    assert opened.end() == 1
    assert opened.errors.startswith("\nThe daemon ended by itself, with exit code -9.\n")
    assert "The end of the daemon's log:" in opened.errors
    assert opened.output.endswith(CLOSED)


def _said(line: str) -> str:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout
