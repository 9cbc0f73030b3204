"""What lies in `systemd/`, and the daemon under what systemd gives a `Type=notify` service.

Sources: sd_notify(3), systemd.exec(5), jail.conf(5).
"""

from __future__ import annotations

import base64
import configparser
import json
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
PYTHON = "/opt/mailferry/bin/python"
MOST_EXPOSURE = 1.5
PATIENCE_S = 30.0
WATCHDOG_S = 0.3


def directives() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False, delimiters="=", interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have cases
    unit.read(UNIT)
    return unit["Service"]


def analyze(verb: str, *arguments: str | Path, exit_code: int = 0) -> str:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is not installed: apt-get install systemd"
    done = subprocess.run([program, verb, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["mailferry.service", "mailferry.socket", "user/mailferry.service"])
def test_systemd_finds_nothing_to_say_about_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each beside the others, with this Python in place of the installed one."""
    for unit in ("mailferry.service", "mailferry.socket", "user/mailferry.service"):
        copy = tmp_path / unit
        copy.parent.mkdir(exist_ok=True)
        copy.write_text((UNIT.parent / unit).read_text().replace(PYTHON, sys.executable))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    user = ("--user",) if name.startswith("user/") else ()
    assert analyze("verify", *user, "--man=no", tmp_path / name) == ""


def test_little_is_exposed() -> None:
    """`systemd-analyze security` counts what a service may do; 10 is everything."""
    report = json.loads(analyze("security", "--offline=true", "--threshold=15", "--json=short", UNIT))
    text = analyze("security", "--offline=true", "--threshold=15", UNIT)
    found = re.search(r"Overall exposure level for mailferry.service: ([0-9.]+)", text)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSURE
    exposed = {each["name"] for each in report if each["set"] is False and float(each["exposure"] or 0) >= 0.2}
    assert exposed == {
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "PrivateNetwork=",
        "IPAddressDeny=",
    }, "it serves a network, and asks another"


def test_the_program_that_the_unit_starts_is_the_one_that_is_installed() -> None:
    program, *arguments = directives()["ExecStart"].split()
    assert program == PYTHON
    assert arguments == ["-I", "-m", "proxy", "--config", "/etc/mailferry/config.yaml", "serve"]


def test_a_reload_is_the_command_which_tells_whether_it_went_well() -> None:
    assert directives()["Type"] == "notify"
    assert directives()["ExecReload"].split() == [*directives()["ExecStart"].split()[:-1], "reload"]


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
        self.pulses: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE_S)
        environment = {
            "NOTIFY_SOCKET": address,
            "STATE_DIRECTORY": str(self.state_dir),
            "CREDENTIALS_DIRECTORY": str(self.credentials),
            "MAILFERRY_CONFIG": str(self.config),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        }
        self.service = Child(
            "mailferry", [sys.executable, "-m", "proxy", "serve"], folder / "log", environment=environment, folder=ROOT
        )

    def told(self) -> list[str]:
        """The next message of the service that is no pulse."""
        while (message := self._next()) and message[0].startswith("STATUS="):
            self.pulses.append(message)
        return message

    def hear_a_pulse(self) -> None:
        self.pulses.append(self._next())

    def _next(self) -> list[str]:
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

    while not manager.pulses:
        manager.hear_a_pulse()
    assert manager.pulses[0] == ["STATUS=0 sessions; accounts: none", "WATCHDOG=1"]

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


def test_sockets_that_systemd_hands_over(tmp_path: Path) -> None:
    """By the real systemd-socket-activate, which starts the daemon when the first connection comes."""
    program = shutil.which("systemd-socket-activate")
    assert program is not None
    ports = {name: free_port() for name in ("imap", "pop3", "smtp")}
    listeners = [f"{{protocol: {name}, address: 127.0.0.1, port: {port}}}" for name, port in ports.items()]
    listeners.append(f"{{protocol: imap, address: '::1', port: {ports['imap']}, socket: doors}}")
    config = tmp_path / "config.yaml"
    lines = "".join(f"  - {listener}\n" for listener in listeners)
    config.write_text(f"state_dir: {tmp_path / 'state'}\npage: off\nlisteners:\n{lines}")
    config.chmod(0o600)
    spare = free_port()
    addresses = [f"127.0.0.1:{port}" for port in (*ports.values(), spare)] + [f"[::1]:{ports['imap']}"]
    command = [program, *(f"--listen={address}" for address in addresses)]
    command += ["--fdname=mailferry:mailferry:mailferry:mailferry:doors", "--setenv=PATH"]
    command += [sys.executable, "-m", "proxy", "--config", str(config), "serve"]
    with closing(Activated(command, tmp_path / "log")) as activated:
        activated.service.wait_ready(lambda: "Listening on [::1]" in activated.log())
        for name, greeting in (("imap", b"* OK"), ("pop3", b"+OK"), ("smtp", b"220 ")):
            with socket.create_connection(("127.0.0.1", ports[name]), PATIENCE_S) as client:
                assert client.recv(64).startswith(greeting)
        with socket.create_connection(("::1", ports["imap"]), PATIENCE_S) as client:
            assert client.recv(64).startswith(b"* OK")
        assert activated.log().count("held_by=systemd") == 4
        (told,) = [line for line in activated.log().splitlines() if "no listener for a socket" in line]
        assert f"port={spare}" in told
        assert activated.service.stop() == 0
        assert "stopped" in activated.log()


class Activated:
    """What systemd-socket-activate becomes: the daemon, in the same process."""

    def __init__(self, command: list[str], output: Path) -> None:
        self.service = Child("mailferry", command, output, folder=ROOT)

    def log(self) -> str:
        return self.service.output.read_text()

    def close(self) -> None:
        self.service.kill()
