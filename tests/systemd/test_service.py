"""The service as it is shipped, under a booted systemd: its sandbox, credentials, sockets, reload, watchdog, commands.

The tests share one machine and go in order: each leaves the service running.
"""

from __future__ import annotations

import base64
import re
import secrets
import socket
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.servers.child import wait_until
from tests.systemd.machine import COMMAND_DEADLINE_S, Machine, greeted

pytestmark = pytest.mark.timeout(600)  # the first one installs
GREETINGS = {1143: b"* OK", 1110: b"+OK", 1587: b"220 "}
SECRET = "the~Secret~Value~of~forty~characters~ok1"
CONFIG = "/etc/mailferry/config.yaml"
GOODBYES = {1143: b"* BYE", 1110: b"-ERR [SYS/TEMP]", 1587: b"421 "}
RESTARTS = 3
NAMES = ("app-work", "account-alice@contoso.com")
SYSTEMD = Path(__file__).parents[2] / "systemd"
CREDENTIALS = (SYSTEMD / "credentials").read_text()
"""The script itself: the machine need not see this checkout, which may lie below /tmp."""


def status_of(machine: Machine, name: str) -> str:
    """A field of the daemon's /proc/PID/status."""
    status = machine.run("cat", f"/proc/{machine.show('mailferry', 'MainPID')}/status")
    found = re.search(rf"^{name}:\s*(.*)$", status, re.MULTILINE)
    assert found is not None
    return found[1]


def test_it_starts_in_its_sandbox(machine: Machine) -> None:
    machine.run("systemctl", "start", "mailferry")
    assert machine.show("mailferry", "ActiveState") == "active"
    assert status_of(machine, "Seccomp") == "2", "the filter is on"
    assert status_of(machine, "NoNewPrivs") == "1"
    assert {status_of(machine, name) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert "root" not in status_of(machine, "Uid")
    assert int(status_of(machine, "Uid").split()[0]) >= 61184, "a dynamic user"
    for port, greeting in GREETINGS.items():
        assert machine.inside(partial(greeted, port)).startswith(greeting)


def test_what_it_keeps_is_its_own(machine: Machine) -> None:
    kept = machine.run("find", "-L", "/var/lib/mailferry", "-not", "-user", "mailferry").splitlines()
    assert kept == []
    assert machine.run("find", "-L", "/var/lib/mailferry", "-perm", "/077", "-not", "-name", "ca.pem") == ""
    assert machine.run("readlink", "-f", CONFIG) == "/var/lib/private/mailferry/config/config.yaml"


def test_the_watchdog_is_pinged_and_the_status_told(machine: Machine) -> None:
    wait_until("a status", lambda: machine.show("mailferry", "StatusText"))
    assert re.fullmatch(r"\d sessions; accounts: none", machine.show("mailferry", "StatusText"))
    pinged = int(machine.show("mailferry", "WatchdogTimestampMonotonic"))
    assert pinged > int(machine.show("mailferry", "ActiveEnterTimestampMonotonic"))


def test_commands_of_root_beside_the_running_service(machine: Machine) -> None:
    app = ("--application-id", "11111111-1111-4111-8111-111111111111", "--account-types", "organizations")
    machine.run("mailferry", "app", "add", "work", *app)
    machine.run("mailferry", "account", "add", "alice@contoso.com")
    assert "sign_in_needed" in machine.run("mailferry", "account", "list")
    owners = machine.run("stat", "--format=%U %a", "-L", *(f"/etc/mailferry/conf.d/{n}.yaml" for n in NAMES))
    assert owners.splitlines() == ["mailferry 600"] * 2, "root wrote for the service"


def test_commands_of_root_while_it_is_stopped(machine: Machine) -> None:
    machine.run("systemctl", "stop", "mailferry")
    machine.run("mailferry", "account", "add", "bob@contoso.com")
    assert "bob@contoso.com" in machine.run("mailferry", "account", "list")
    assert machine.run("mailferry", "check", "--json", exit_code=None)
    machine.run("systemctl", "start", "mailferry")
    assert "bob@contoso.com" in machine.run("mailferry", "account", "list")
    assert machine.run("find", "-L", "/var/lib/mailferry", "-not", "-user", "mailferry") == ""


def test_reload(machine: Machine) -> None:
    before = machine.show("mailferry", "MainPID")
    machine.run("systemctl", "reload", "mailferry")
    assert "configuration reloaded" in machine.journal()
    assert machine.show("mailferry", "MainPID") == before


def test_a_reload_that_is_refused_is_no_success(machine: Machine) -> None:
    before = machine.show("mailferry", "MainPID")
    machine.run("sh", "-c", f"cp -p {CONFIG} {CONFIG}.good && echo 'nonsense: 1' >>{CONFIG}")
    machine.run("systemctl", "reload", "mailferry", exit_code=1)
    assert re.search(r"config\.yaml:\d+: nonsense", machine.journal("--priority=err")), "the reason stands there"
    machine.run("mv", f"{CONFIG}.good", CONFIG)
    machine.run("sh", "-c", f"cp -p {CONFIG} {CONFIG}.good && echo 'state_dir: /var/lib/mailferry/other' >>{CONFIG}")
    machine.run("systemctl", "reload", "mailferry")
    assert "state_dir changed: restart mailferry to use it" in machine.journal("--priority=warning")
    machine.run("mv", f"{CONFIG}.good", CONFIG)
    machine.run("systemctl", "reload", "mailferry")
    assert machine.show("mailferry", "MainPID") == before
    for port, greeting in GREETINGS.items():
        assert machine.inside(partial(greeted, port)).startswith(greeting)


def test_the_journal_knows_how_bad_a_line_is(machine: Machine) -> None:
    def wrong_password() -> bytes:
        with socket.create_connection(("127.0.0.1", 1110), COMMAND_DEADLINE_S) as client:
            lines = client.makefile("rb")
            lines.readline()
            client.sendall(b"USER a peer=192.0.2.1 b\r\nPASS wrong\r\n")
            return lines.readline() + lines.readline()

    assert b"-ERR [AUTH]" in machine.inside(wrong_password)
    warnings = machine.journal("--priority=warning")
    assert "login refused" in warnings
    assert " info " not in warnings
    assert "<4>" not in warnings
    said = machine.run("fail2ban-regex", "systemd-journal", "/etc/fail2ban/filter.d/mailferry.conf")
    assert re.search(r"Lines: \d+ lines, \d+ ignored, 1 matched", said), said


def test_a_key_a_secret_and_a_certificate_are_credentials(machine: Machine) -> None:
    store = "/etc/credstore"
    machine.write(f"{store}/mailferry.key", base64.b64encode(secrets.token_bytes(32)).decode(), "600")
    machine.write(f"{store}/mailferry.secret", SECRET, "600")
    folder = "/var/lib/mailferry/tls"
    for kind in ("pem", "key"):
        machine.run("install", "-m", "600", f"{folder}/server.{kind}", f"{store}/mailferry.mail.{kind}")
    machine.run("bash", "-c", CREDENTIALS)
    machine.run("systemctl", "stop", "mailferry")
    machine.run("sh", "-c", "rm -f /var/lib/mailferry/mailferry.key /var/lib/mailferry/tokens.sqlite*")
    machine.run("sed", "-i", "s/tls: auto}/tls: auto, certificate: {credential: mailferry.mail}}/", CONFIG)
    app = "/var/lib/mailferry/config/conf.d/app-work.yaml"
    machine.run("sh", "-c", f"echo '    client_secret: {{credential: mailferry.secret}}' >>{app}")
    machine.run("systemctl", "start", "mailferry")
    assert "mailferry.key" not in machine.run("ls", "/var/lib/mailferry"), "the credential is the key"
    assert "alice@contoso.com" in machine.run("mailferry", "account", "list"), "a command of root finds them too"
    machine.run("systemctl", "stop", "mailferry")
    assert "alice@contoso.com" in machine.run("mailferry", "account", "list"), "and without the daemon"
    machine.run("systemctl", "start", "mailferry")
    assert SECRET not in machine.journal()


def test_credentials_may_be_encrypted(machine: Machine) -> None:
    machine.run("mkdir", "-m", "700", "/etc/credstore.encrypted")
    for name in ("mailferry.key", "mailferry.secret", "mailferry.mail.pem", "mailferry.mail.key"):
        machine.run(
            *("systemd-creds", "encrypt", "--with-key=host", f"--name={name}"),
            *(f"/etc/credstore/{name}", f"/etc/credstore.encrypted/{name}"),
        )
    machine.run("rm", "-r", "/etc/credstore")
    machine.run("bash", "-c", CREDENTIALS)
    assert "LoadCredentialEncrypted" in machine.run("systemctl", "cat", "mailferry")
    machine.run("systemctl", "restart", "mailferry")
    assert machine.inside(lambda: greeted(1143)).startswith(b"* OK")
    assert "alice@contoso.com" in machine.run("mailferry", "account", "list")


def more_than(things: list[int], count: int) -> bool:
    return len(things) > count


def test_a_restart_under_its_sockets_refuses_no_connect(machine: Machine) -> None:
    machine.run("systemctl", "stop", "mailferry")
    machine.run("systemctl", "start", "mailferry.socket")
    ended = threading.Event()
    served: list[int] = []
    parted: list[int] = []
    failed: list[str] = []

    def connect_again_and_again() -> None:
        while not ended.is_set():
            for port, greeting in GREETINGS.items():
                for host in ("127.0.0.1", "::1"):
                    try:
                        said = greeted(port, host)
                    except OSError as error:
                        failed.append(f"{host} {port}: {error}")
                        continue
                    if said.startswith(greeting):
                        served.append(port)
                    elif said.startswith(GOODBYES[port]):  # it came in just before the end, and was told so
                        parted.append(port)
                    else:
                        failed.append(f"{host} {port}: {said!r}")

    programs = [threading.Thread(target=machine.inside, args=(connect_again_and_again,)) for _ in range(4)]
    for program in programs:
        program.start()
    try:
        wait_until("the first connection starts the service", lambda: len(served) > 20)
        for _ in range(RESTARTS):
            before = len(served)
            machine.run("systemctl", "restart", "mailferry")
            wait_until("served again", partial(more_than, served, before + 20))
    finally:
        ended.set()
        for program in programs:
            program.join()
    print(
        f"{RESTARTS} restarts: {len(served)} connections greeted, {len(parted)} told to come again, {len(failed)} lost"
    )
    assert failed == []
    assert machine.journal().count("held_by=systemd") >= 6 * (RESTARTS + 1)


def test_the_installer_starts_it_and_with_sockets_if_told_so(machine: Machine) -> None:
    """All of it but the program, which is there: this machine has no network to fetch it from."""
    for file in SYSTEMD.rglob("*"):
        if file.is_file():
            text = re.sub(r"^program$", "", file.read_text(), flags=re.MULTILINE)
            machine.write(f"/srv/systemd/{file.relative_to(SYSTEMD)}", text, "755")
    machine.run("systemctl", "disable", "--now", "mailferry.socket", "mailferry.service")  # and forgets its starts
    assert "install: done; next: mailferry page" in machine.run("/srv/systemd/install").splitlines()
    assert machine.show("mailferry", "ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "mailferry.service") == "enabled"
    assert machine.show("mailferry.socket", "ActiveState") == "inactive"
    for _ in range(2):
        machine.run("/srv/systemd/install", "--sockets")
        assert machine.show("mailferry.socket", "ActiveState") == "active"
        assert machine.run("systemctl", "is-enabled", "mailferry.socket") == "enabled"
        assert machine.show("mailferry", "ActiveState") == "active"
        assert machine.inside(partial(greeted, 1143)).startswith(b"* OK")
    assert "alice@contoso.com" in machine.run("mailferry", "account", "list"), "what is yours stays"


def test_a_daemon_that_hangs_is_ended_and_started_again(machine: Machine) -> None:
    machine.write("/run/systemd/system/mailferry.service.d/quick.conf", "[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "mailferry")
    before = machine.show("mailferry", "MainPID")
    machine.run("kill", "-STOP", before)
    wait_until("another one runs", lambda: machine.show("mailferry", "MainPID") not in ("0", before))
    wait_until("it is ready", lambda: machine.show("mailferry", "ActiveState") == "active")
    assert "watchdog" in machine.run("journalctl", "--no-pager", "--unit=mailferry").lower()
    assert machine.inside(lambda: greeted(1143)).startswith(b"* OK")
    machine.run("rm", "/run/systemd/system/mailferry.service.d/quick.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "mailferry")


def test_a_configuration_that_does_not_hold_is_not_tried_again(machine: Machine) -> None:
    machine.run("cp", "--preserve=all", CONFIG, "/root/kept.yaml")
    machine.run("sh", "-c", f"echo 'nonsense: true' >{CONFIG}")
    machine.run("systemctl", "restart", "mailferry", exit_code=1)
    assert machine.show("mailferry", "ExecMainStatus") == "2"
    assert machine.show("mailferry", "NRestarts") == "0"
    assert "unknown key" in machine.journal()
    machine.run("cp", "--preserve=all", "/root/kept.yaml", "/var/lib/mailferry/config/config.yaml")
    machine.run("systemctl", "reset-failed", "mailferry.service", "mailferry.socket")
    machine.run("systemctl", "start", "mailferry.socket", "mailferry.service")
