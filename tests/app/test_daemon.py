"""The daemon as a process: how a start fails, what a reload changes; and its listeners' certificates.

Its end, its log-ins and its talk with systemd are tested in `end_to_end/` and `systemd/`.
"""

from __future__ import annotations

import imaplib
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from proxy.accounts.store import lock_state_folder
from proxy.app.answers import DeskError
from proxy.app.asking import SOCKET_NAME, ask_daemon
from proxy.app.daemon import (
    UnusableCertificate,
    count_sessions,
    listener_contexts,
    raise_descriptor_limit,
)
from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.network.limits import Gate
from proxy.network.session import kind_of
from proxy.protocols import PROTOCOLS
from tests.app.home import ALICE, APPLICATION_ID, Home
from tests.app.page.visitor import Visitor
from tests.servers.child import Child, free_port, wait_until

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
CERTIFICATE = ", certificate: {file: own.pem, key: own.key}"


class Serving:
    """A daemon on a home, from the start to `close`."""

    def __init__(self, home: Home, certificate: str = "", page: str = "off") -> None:
        self.home = home
        self.port = free_port()
        home.write_main(port=self.port, certificate=certificate, page=page)
        self.log = home.folder / "log"
        command = [sys.executable, "-m", "proxy", "--config", str(home.file), "serve"]
        self.child = Child("mailferry", command, self.log, folder=ROOT)
        self.child.wait_ready(lambda: "ready" in self.log.read_text() and (home.state_dir / SOCKET_NAME).exists())

    def reload(self) -> list[str]:
        warnings: list[str] = ask_daemon(self.home.state_dir, "reload", {})["warnings"]
        return warnings

    def logins(self) -> list[str]:
        return [row["login"] for row in ask_daemon(self.home.state_dir, "accounts", {})["accounts"]]

    def refusal(self, login: str, password: str) -> str:
        """Why the login is refused."""
        with imaplib.IMAP4("localhost", self.port, timeout=PATIENCE_S) as client, pytest.raises(client.error) as said:
            client.login(login, password)
        return str(said.value)

    def shown(self) -> bytes:
        """The certificate that mail programs see."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("localhost", self.port), PATIENCE_S) as plain,
            context.wrap_socket(plain) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
        assert der is not None
        return der

    def close(self) -> None:
        if self.child.process.poll() is None:
            self.child.stop()
        assert "Traceback" not in self.log.read_text()


@pytest.fixture
def serving(home: Home) -> Iterator[Serving]:
    with closing(Serving(home)) as serving:
        yield serving


# --- a start that fails


def serve(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """The exit code and the lines of a daemon that ends by itself."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *arguments, "serve"],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def fails(home: Home) -> tuple[int, str]:
    """The exit code, and the only line that is no news of the start."""
    code, lines = serve("--config", str(home.file))
    (line,) = [line for line in lines if " info " not in line]
    return code, line


def test_a_port_that_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        home.write_main(port=number)
        code, line = fails(home)
    assert code == 1
    assert f'cannot start reason="imap cannot listen on 127.0.0.1 port {number}: Address already in use"' in line
    lock_state_folder(home.state_dir).release()


def test_a_state_folder_that_is_held(home: Home) -> None:
    folder = lock_state_folder(home.state_dir)
    code, line = fails(home)
    assert code == 5
    assert f"another mailferry holds the state folder state_dir={home.state_dir} pid={os.getpid()}" in line
    folder.release()


def test_a_state_folder_that_others_may_write(home: Home) -> None:
    home.state_dir.mkdir()
    home.state_dir.chmod(0o777)
    code, line = fails(home)
    assert code == 1
    assert f"chmod 700 {home.state_dir}" in line


def test_a_store_that_is_damaged(home: Home) -> None:
    home.state_dir.mkdir(mode=0o700)
    (home.state_dir / "tokens.sqlite").write_bytes(b"nonsense" * 1000)
    code, line = fails(home)
    assert code == 1
    assert "cannot start" in line
    assert "is damaged" in line


def test_a_control_socket_that_cannot_be(home: Home) -> None:
    home.state_dir = home.folder / ("d" * 90)
    home.write_main(port=free_port())
    code, line = fails(home)
    assert code == 1
    assert "control.sock cannot be made: AF_UNIX path too long" in line


def test_a_certificate_that_is_none(home: Home) -> None:
    write(home, b"nonsense", b"nonsense")
    home.write_main(port=free_port(), certificate=CERTIFICATE)
    code, line = fails(home)
    assert code == 1
    assert f"The certificate of the imap listener cannot be used ({home.folder}/own.pem" in line


def test_a_certificate_that_is_missing(home: Home) -> None:
    home.write_main("  - {protocol: smtp, port: 1, certificate: {file: a.pem, key: a.key}}\n")
    told = home.run("serve", exit_code=2)
    assert f"{home.file}:5: " in told.errors
    assert "a.pem" in told.errors
    assert "a.key" in told.errors


def test_without_a_configuration_a_first_one_is_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    folder = lock_state_folder(state)  # held, so that it ends
    environment = {"HOME": str(tmp_path), "MAILFERRY_CONFIG": "", "STATE_DIRECTORY": str(state)}
    code, lines = serve(environment=environment)
    folder.release()
    made = tmp_path / ".config/mailferry/config.yaml"
    assert code == 5, "it was about to start"
    assert lines[0] == f"mailferry: no configuration found; a first one was made: {made}"
    assert made.exists()


# --- reload


def test_a_new_account_is_usable_without_a_restart(serving: Serving) -> None:
    home = serving.home
    home.add_app()
    password = home.add_account()
    assert f"mailferry sign-in {ALICE}" in serving.refusal(ALICE, password)
    home.run("account", "remove", ALICE)
    assert "[AUTHENTICATIONFAILED]" in serving.refusal(ALICE, password)


def test_a_broken_file_changes_nothing(serving: Serving) -> None:
    home = serving.home
    home.add_app()
    password = home.add_account()
    broken = home.folder / "conf.d" / "zz.yaml"
    broken.write_text("accounts: [{login: x@contoso.com, app: nowhere}]\n")
    with pytest.raises(DeskError, match=f"{broken}:1: ") as caught:
        serving.reload()
    assert caught.value.exit_code == 2
    os.kill(serving.child.process.pid, signal.SIGHUP)
    wait_until("it says so", lambda: "not reloaded; the old one stays" in serving.log.read_text())
    assert serving.logins() == [ALICE]
    assert f"mailferry sign-in {ALICE}" in serving.refusal(ALICE, password)
    broken.unlink()
    assert serving.reload() == []


def test_what_needs_a_restart_is_said_until_it_comes(serving: Serving) -> None:
    home = serving.home
    key = home.folder / "other.key"
    key.write_text((home.state_dir / "mailferry.key").read_text())
    key.chmod(0o600)
    home.write_main(f"key: {{file: {key}}}\n", port=serving.port)
    said = ["key changed: restart mailferry to use it"]
    assert serving.reload() == said
    assert serving.reload() == said, "what runs is still the old"
    told = home.run("reload")
    assert told.errors.splitlines() == said
    assert "The daemon works with the configuration as it is now" in told.output
    home.write_main(port=serving.port)
    assert serving.reload() == []


def test_the_verb_reload_says_what_does_not_hold(serving: Serving) -> None:
    home = serving.home
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        home.write_main(f"  - {{protocol: smtp, address: 127.0.0.1, port: {taken}}}\n", port=serving.port)
        assert (
            f"cannot listen on 127.0.0.1 port {taken}: Address already in use" in home.run("reload", exit_code=1).errors
        )
    home.file.write_text("listeners: nonsense\n")
    assert f"{home.file}:1: listeners" in home.run("reload", exit_code=2).errors


def test_the_verb_reload_without_a_daemon(home: Home) -> None:
    assert "No daemon runs here" in home.run("reload", exit_code=4).errors


def test_listeners_come_and_go(serving: Serving) -> None:
    home, old, new = serving.home, serving.port, free_port()
    home.add_app()
    password = home.add_account()
    with imaplib.IMAP4("localhost", old, timeout=PATIENCE_S) as early:
        home.write_main(f"  - {{protocol: imap, port: {old}, tls: off, address: 127.0.0.2}}\n", port=new)
        assert serving.reload() == []
        serving.port = new
        assert f"mailferry sign-in {ALICE}" in serving.refusal(ALICE, password)
        with imaplib.IMAP4("127.0.0.2", old, timeout=PATIENCE_S) as moved:
            assert "STARTTLS" not in moved.capabilities
        with pytest.raises(ConnectionRefusedError):
            imaplib.IMAP4("127.0.0.1", old, timeout=PATIENCE_S)
        assert early.noop()[0] == "OK", "who came in before goes on"


def test_a_listener_that_cannot_be_had_changes_nothing(serving: Serving) -> None:
    home, new = serving.home, free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        more = f"  - {{protocol: imap, port: {new}}}\n  - {{protocol: smtp, address: 127.0.0.1, port: {taken}}}\n"
        home.write_main(f"{more}hostname: mail.contoso.com\n", port=serving.port)
        with pytest.raises(DeskError, match=f"smtp cannot listen on 127.0.0.1 port {taken}: Address already in use"):
            serving.reload()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", new))
        assert b"mail.contoso.com" not in serving.shown()
        os.kill(serving.child.process.pid, signal.SIGHUP)
        wait_until("it says so", lambda: "not reloaded; the old one stays" in serving.log.read_text())
    assert serving.reload() == []
    assert b"mail.contoso.com" in serving.shown()


def test_the_log_and_the_page_change_with_a_reload(serving: Serving) -> None:
    home, at = serving.home, free_port()
    with pytest.raises(DeskError, match="page"):
        ask_daemon(home.state_dir, "invite", {})
    home.write_main("log: {format: json}\n", port=serving.port, page=f"127.0.0.1:{at}")
    assert serving.reload() == []
    first: str = ask_daemon(home.state_dir, "invite", {})["address"]
    assert "From nothing to connected" in Visitor(at).enter(first).words
    assert json.loads(serving.log.read_text().splitlines()[-1])["event"]
    home.write_main(port=serving.port, page=f"127.0.0.1:{free_port()}")
    assert serving.reload() == []
    assert ask_daemon(home.state_dir, "invite", {})["address"].partition("/open/")[0] not in first
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", at))


def test_a_renewed_certificate_is_shown_after_a_reload(own: Home, certificates: list[LocalCertificate]) -> None:
    first, second = (ssl.PEM_cert_to_DER_cert(each.file.read_text()) for each in certificates)
    with closing(Serving(own, CERTIFICATE)) as serving:
        assert serving.shown() == first
        write(own, certificates[1].file.read_bytes(), certificates[1].key.read_bytes())
        assert serving.reload() == []
        assert serving.shown() == second
        write(own, certificates[0].file.read_bytes(), certificates[1].key.read_bytes())
        with pytest.raises(DeskError, match="belong together") as caught:
            serving.reload()
        assert caught.value.exit_code == 1
        assert serving.shown() == second


# --- certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[LocalCertificate]:
    return [local_certificate(tmp_path_factory.mktemp("certificate")) for _ in range(2)]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated:DeprecationWarning")  # that is the point
def test_listeners_that_show_the_same_share_it(home: Home, certificates: list[LocalCertificate]) -> None:
    own = f"certificate: {{file: {certificates[0].file}, key: {certificates[0].key}}}"
    home.write_main(
        "  - {protocol: pop3, port: 1110}\n"
        "  - {protocol: smtp, port: 1587, legacy_tls: true}\n"
        f"  - {{protocol: imap, port: 1993, tls: implicit, {own}}}\n"
        "  - {protocol: imap, port: 1144, tls: off}\n"
    )
    imap, pop3, legacy, own_one, none = [context for _, context in listener_contexts(home.config())]
    assert imap is pop3
    assert len({id(context) for context in (imap, legacy, own_one)}) == 3
    assert none is None
    assert sorted(file.name for file in (home.state_dir / "tls").iterdir()) == [
        "ca.key",
        "ca.pem",
        "server.key",
        "server.pem",
    ]


@pytest.fixture
def own(home: Home, certificates: list[LocalCertificate]) -> Home:
    """Its listener shows a certificate of its own."""
    write(home, certificates[0].file.read_bytes(), certificates[0].key.read_bytes())
    home.write_main(certificate=CERTIFICATE)
    return home


def write(home: Home, certificate: bytes, key: bytes) -> None:
    (home.folder / "own.pem").write_bytes(certificate)
    (home.folder / "own.key").write_bytes(key)
    (home.folder / "own.key").chmod(0o600)


def bad_pairs(certificates: list[LocalCertificate]) -> dict[str, tuple[bytes, bytes]]:
    first, second = certificates
    return {
        "strangers": (first.file.read_bytes(), second.key.read_bytes()),
        "exchanged": (first.key.read_bytes(), first.file.read_bytes()),
        "empty": (b"", b""),
    }


@pytest.mark.parametrize("kind", ["strangers", "exchanged", "empty"])
def test_a_pair_that_is_not_good(kind: str, own: Home, certificates: list[LocalCertificate]) -> None:
    good = own.config()
    write(own, *bad_pairs(certificates)[kind])
    said = f"imap listener cannot be used \\({own.folder}/own.pem, {own.folder}/own.key\\): .*belong together"
    with pytest.raises(UnusableCertificate, match=said):
        listener_contexts(good)


def test_a_file_that_is_gone(own: Home) -> None:
    good = own.config()
    (own.folder / "own.key").unlink()
    with pytest.raises(UnusableCertificate, match="No such file"):
        listener_contexts(good)


def test_a_local_certificate_that_cannot_be_made(home: Home) -> None:
    home.state_dir.mkdir(mode=0o700)
    (home.state_dir / "tls").write_text("in the way")
    with pytest.raises(UnusableCertificate, match=f"\\({home.state_dir}/tls\\): File exists"):
        listener_contexts(home.config())


def test_all_descriptors_that_are_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    raise_descriptor_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_secret_that_ends_is_told_at_the_start(home: Home) -> None:
    """Upkeep is at work."""
    app = home.folder / "conf.d" / "app-old.yaml"
    app.parent.mkdir(mode=0o700)
    app.touch(0o600)
    app.write_text(
        f"apps: {{old: {{application_id: {APPLICATION_ID}, client_secret: the~Secret, "
        "client_secret_expires: 2020-02-29}}\n"
    )
    with closing(Serving(home)) as serving:
        told = [line for line in serving.log.read_text().splitlines() if "client secret ends" in line]
    assert len(told) == 1
    assert "app=old expires=2020-02-29" in told[0]
    assert "the~Secret" not in told[0]


# --- the page


def test_the_daemon_serves_its_page(home: Home) -> None:
    port = free_port()
    with closing(Serving(home, page=f"127.0.0.1:{port}")) as serving:
        told = home.run("page", "--json")
        visitor = Visitor(port)
        assert "From nothing to connected" in visitor.enter(json.loads(told.output)["address"]).words
        visitor.submit("/apps/new", {"name": "work", "application_id": APPLICATION_ID, "account_types": "common"})
        visitor.submit("/accounts/new", {"login": ALICE, "app": "work", "protocols": "imap"})
        assert serving.logins() == [ALICE], "the daemon has reloaded itself"
        assert Visitor(port).ask("GET", "/health").status == 200
        assert "/open/" not in serving.log.read_text(), "a link is not for the log"
        (row,) = ask_daemon(home.state_dir, "accounts", {})["accounts"]
        assert row["sessions"] == 0


def test_at_a_terminal_a_start_ends_with_a_link(home: Home) -> None:
    port = free_port()
    home.write_main(port=free_port(), page=f"127.0.0.1:{port}")
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "proxy", "--config", str(home.file), "serve"]
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=end) as child:
        os.close(end)
        said = ""
        try:
            while "For another link: mailferry page" not in said:
                said += os.read(terminal, 4096).decode()
            (link,) = re.findall(rf"^    (http://localhost:{port}/open/\S+)\r$", said, re.MULTILINE)
            assert "From nothing to connected" in Visitor(port).enter(link).words
        finally:
            child.terminate()
            child.wait(PATIENCE_S)
            os.close(terminal)


def test_a_page_whose_port_is_taken_does_not_stop_the_mail(home: Home) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with closing(Serving(home, page=f"127.0.0.1:{port}")) as serving:
            told = f'page cannot listen address=127.0.0.1 port={port} reason="Address already in use"'
            assert told in serving.log.read_text()
            assert serving.refusal("nobody", "x")
            assert f"port {port}: Address already in use" in home.run("page", exit_code=1).errors


def test_the_sessions_of_an_account_are_counted(home: Home) -> None:
    home.add_app()
    home.add_account()
    account = home.config().accounts[0]
    gate = Gate(Clock())
    assert count_sessions(gate, account) == 0
    inside = [gate.place(kind_of(PROTOCOLS[name], account), 5) for name in ("imap", "imap", "smtp")]
    for place in inside:
        Deferred.fromCoroutine(cast("Any", place.__aenter__()))
    assert count_sessions(gate, account) == 3
