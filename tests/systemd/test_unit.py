"""What lies in `systemd/`, and the daemon under what systemd gives a `Type=notify` service.

Sources: sd_notify(3), systemd.exec(5), jail.conf(5).
"""

from __future__ import annotations

import base64
import configparser
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.servers.child import Child, free_port

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "mailferry.service"
INSTALLED = "/opt/mailferry"
PATIENCE_S = 30.0


def directives() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, delimiters="=", interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have cases
    unit.read(UNIT)
    return unit["Service"]


def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not installed: apt-get install systemd"
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(INSTALLED, str(ROOT)))
    done = subprocess.run([program, "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_program_that_the_unit_starts_is_the_launcher() -> None:
    program, verb = directives()["ExecStart"].split()
    assert verb == "serve"
    assert os.access(program.replace(INSTALLED, str(ROOT)), os.X_OK)


def test_the_example_that_the_unit_tells_to_copy_can_name_the_state_folder() -> None:
    assert directives()["StateDirectory"] == "mailferry"
    assert "\n# state_dir: /var/lib/mailferry\n" in (ROOT / "config.example.yaml").read_text()


class Manager:
    """systemd's side: the folders it makes, the socket it listens at, the service it runs."""

    def __init__(self, folder: Path, address: str) -> None:
        self.state_dir, self.credentials = folder / "state", folder / "credentials"
        self.state_dir.mkdir(mode=0o700)
        self.credentials.mkdir(mode=0o700)
        self.key = self.credentials / "mailferry.key"
        self.key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
        self.key.chmod(0o400)
        self.config = folder / "config.yaml"
        self.ports = {name: free_port() for name in ("imap", "pop3", "smtp")}
        listeners = (f"  - {{protocol: {name}, port: {port}}}\n" for name, port in self.ports.items())
        self.config.write_text(f"page: off\nlisteners:\n{''.join(listeners)}")
        self.config.chmod(0o600)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE_S)
        environment = {
            "NOTIFY_SOCKET": address,
            "STATE_DIRECTORY": str(self.state_dir),
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            "MAILFERRY_CONFIG": str(self.config),
        }
        self.service = Child(
            "mailferry", [sys.executable, "-m", "proxy", "serve"], folder / "log", environment=environment, folder=ROOT
        )

    def told(self) -> list[str]:
        """The next message of the service."""
        try:
            return self._socket.recv(4096).decode().splitlines()
        except TimeoutError:
            raise AssertionError(f"the service says nothing\n{self.service.output.read_text()}") from None

    def close(self) -> None:
        self.service.kill()
        self._socket.close()


@pytest.fixture(params=["in the file system", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = f"@mailferry-test-{secrets.token_hex(8)}" if request.param == "abstract" else str(tmp_path / "notify")
    with closing(Manager(tmp_path, address)) as manager:
        yield manager


def test_a_life_as_systemd_follows_it(manager: Manager) -> None:
    assert manager.told() == ["READY=1"]
    assert (manager.state_dir / "tokens.sqlite").exists(), "$STATE_DIRECTORY is the state folder"
    assert not (manager.state_dir / "mailferry.key").exists(), "the credential is the key: no other one is made"

    manager.service.process.send_signal(signal.SIGHUP)
    reloading, moment = manager.told()
    assert reloading == "RELOADING=1"
    assert moment.removeprefix("MONOTONIC_USEC=").isdigit()
    assert manager.told() == ["READY=1"]

    manager.config.write_text("nonsense: true\n")  # the old configuration stays, and so does the service
    manager.service.process.send_signal(signal.SIGHUP)
    assert manager.told()[0] == "RELOADING=1"
    assert manager.told() == ["READY=1"]

    manager.service.process.terminate()
    assert manager.told() == ["STOPPING=1"]
    assert manager.service.process.wait(PATIENCE_S) == 0
    assert "configuration not reloaded" in manager.service.output.read_text()


def test_a_configuration_that_does_not_hold_is_not_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("nonsense: true\n")
    command = [sys.executable, "-m", "proxy", "--config", str(file), "serve"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert str(done.returncode) in directives()["RestartPreventExitStatus"].split()


@pytest.mark.parametrize("login", [b"alice@contoso.com", b'a" peer=192.0.2.1 reason=bad_credentials b'])
def test_fail2ban_finds_who_sent_a_wrong_password(manager: Manager, login: bytes) -> None:
    assert manager.told() == ["READY=1"]
    with socket.create_connection(("127.0.0.1", manager.ports["pop3"]), PATIENCE_S) as client:
        answers = client.makefile("rb")
        assert answers.readline().startswith(b"+OK")
        client.sendall(b"USER %b\r\nPASS wrong\r\n" % login)
        assert answers.readline().startswith(b"+OK")
        assert answers.readline().startswith(b"-ERR [AUTH]")
    failregex = _fail2ban()["failregex"].replace("<HOST>", r"(?P<host>[0-9a-f.:]+)")
    (found,) = [
        match for line in manager.service.output.read_text().splitlines() if (match := re.search(failregex, line))
    ]
    assert found["host"] == "127.0.0.1"


def _fail2ban() -> configparser.SectionProxy:
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(UNIT.with_name("fail2ban-mailferry.conf"))
    return rules["Definition"]
