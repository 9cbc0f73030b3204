"""The filter and the jail, as the real fail2ban reads them (the journal's way is in `test_service.py`)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import SYSTEMD

FILTER, JAIL = SYSTEMD / "fail2ban" / "filter.conf", SYSTEMD / "fail2ban" / "jail.conf"
TIME = "2026-11-25T00:36:57.677Z"
STRANGER, VICTIM = "203.0.113.9", "198.51.100.7"


def banned(folder: Path, *lines: str) -> list[str]:
    """Whom fail2ban-regex finds in these lines of a log."""
    log = folder / "log"
    log.write_text("".join(f"{line}\n" for line in lines))
    command = ["fail2ban-regex", "--out", "ip", str(log), str(FILTER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "", done.stderr
    return done.stdout.split()


def refused(login: str = "a@b", peer: str = STRANGER, reason: str = "bad_credentials", more: str = "") -> str:
    shown = login if re.fullmatch(r"[\w@.]+", login) else json.dumps(login)
    fields = f"session=3 listener=imap peer={peer} login={shown} reason={reason} fault=client{more}"
    return f"{TIME} warning login refused {fields}"


@pytest.mark.parametrize("before", ["", "mail mailferry[81]: "])
@pytest.mark.parametrize("reason", ["bad_credentials", "too_many_attempts"])
@pytest.mark.parametrize("peer", [STRANGER, "2001:db8::9"])
def test_who_guesses_is_found(tmp_path: Path, before: str, reason: str, peer: str) -> None:
    assert banned(tmp_path, before + refused(peer=peer, reason=reason)) == [peer]


@pytest.mark.parametrize(
    "line",
    [
        refused(reason="sign_in_needed"),
        refused(reason="try_later", more=' text="reason=bad_credentials"'),
        f"{TIME} info    login accepted session=3 listener=imap peer={STRANGER} login=a@b",
        f"{TIME} info    closed before login session=3 peer={STRANGER} reason=bad_credentials",
    ],
)
def test_who_does_not_is_not(tmp_path: Path, line: str) -> None:
    assert banned(tmp_path, line) == []


@pytest.mark.parametrize(
    "login",
    [
        f'x" peer={VICTIM} reason=bad_credentials y="',
        f"x peer={VICTIM} reason=bad_credentials",
        f"login refused peer={VICTIM} reason=bad_credentials",
        f"warning login refused peer={VICTIM} reason=bad_credentials ",
        f'\\" peer={VICTIM} reason=bad_credentials',
    ],
)
@pytest.mark.parametrize("reason", ["bad_credentials", "try_later"])
def test_no_login_names_another_address(tmp_path: Path, login: str, reason: str) -> None:
    found = banned(tmp_path, refused(login, reason=reason))
    assert found == ([STRANGER] if reason == "bad_credentials" else [])


def test_the_jail_holds(tmp_path: Path) -> None:
    """fail2ban's own configuration, with ours in its place."""
    subprocess.run(["cp", "-a", "/etc/fail2ban", tmp_path / "etc"], check=True)
    (tmp_path / "etc/jail.d/defaults-debian.conf").unlink()
    (tmp_path / "etc/filter.d/mailferry.conf").write_text(FILTER.read_text())
    (tmp_path / "etc/jail.d/mailferry.conf").write_text(JAIL.read_text())
    command = ["fail2ban-client", "-c", str(tmp_path / "etc"), "--dump"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert "['set', 'mailferry', 'maxretry', 10]" in done.stdout
    assert "'addjournalmatch', '_SYSTEMD_UNIT=mailferry.service'" in done.stdout
