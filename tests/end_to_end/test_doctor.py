"""`doctor` and `account test` as a person runs them: each planted fault is found, and its culprit named.

Behind mailferry are the stand-in sign-in service, real Dovecot and Postfix, or a scripted Exchange in their place.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any
from unittest import mock

import pytest

from proxy import config as configuration
from proxy.accounts.passwords import hash_password
from proxy.app.asking import ask_daemon
from proxy.config import Value
from proxy.demo.certificates import LocalCertificate
from proxy.demo.doors import DISCOVERY
from proxy.demo.identity import EVERYWHERE, EXCHANGE_SCOPES, Failure
from tests.app.doctor.authorities import make_authority
from tests.app.home import Home
from tests.end_to_end import refused
from tests.end_to_end.exchange import OFFERS, Exchange, Part, Wire
from tests.end_to_end.ferry import APP, USER_CODE, Ferry
from tests.end_to_end.quay import announce, ehlo_answer, let_in, own_mailbox, sign_in_at_once
from tests.servers.child import free_port
from tests.servers.mailhost import MailHost, Person

Found = dict[str, Any]
SOME_HASH = hash_password("nobody logs in by it")
GRAPH = ("https://graph.microsoft.com/Mail.Read",)


# --- saying and reading


class Report:
    """What `doctor --json` found."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.verdict = document["verdict"]
        self.findings: list[Found] = document["findings"]

    def the(self, check: str, verdict: str = "fail", *words: str) -> Found:
        """The first finding of this check and verdict; these words stand in it."""
        found = [each for each in self.findings if (each["check"], each["verdict"]) == (check, verdict)]
        assert found, f"no {verdict} of {check} among {[(f['check'], f['verdict'], f['cause']) for f in self.findings]}"
        said = json.dumps(found[0], ensure_ascii=False)
        for word in words:
            assert word in said, f"{word!r} is not in {said}"
        return found[0]

    def first_failure(self) -> Found:
        return next(each for each in self.findings if each["verdict"] == "fail")

    def blames(self, check: str, fault: str, *words: str, who: str = "operator") -> None:
        """The first failure is this one: its check, whose fault, who must act, and words of cause and remedy."""
        first = self.first_failure()
        assert (first["check"], first["fault"], first["who"]) == (check, fault, who), first
        assert first["remedy"], first
        self.the(check, "fail", *words)


class Commands(Home):
    """mailferry's commands on this configuration, in the test's own process: to start one takes seconds here."""

    def __init__(self, file: Path) -> None:
        self.file = file


def examine(ferry: Ferry, *arguments: str, exit_code: int = 1, environment: Mapping[str, str] | None = None) -> Report:
    return Report(_json(ferry, "doctor", *arguments, exit_code=exit_code, environment=environment))


def try_account(ferry: Ferry, login: str, exit_code: int) -> list[Found]:
    tests: list[Found] = _json(ferry, "account", "test", login, exit_code=exit_code)["tests"]
    return tests


def _json(
    ferry: Ferry, *arguments: str, exit_code: int, environment: Mapping[str, str] | None = None
) -> Mapping[str, Any]:
    with mock.patch.dict(os.environ, {**ferry.environment, **(environment or {})}):
        output = Commands(ferry.config).run(*arguments, "--json", exit_code=exit_code).output
    (ferry.folder / f"told-{uuid.uuid4()}.json").write_text(output)  # no secret may stand there: Ferry.close looks
    document: dict[str, Any] = json.loads(output)
    return document


# --- planting


def plant_app(ferry: Ferry, name: str = APP, *, secret: str = "", **more: str) -> None:
    """An app in the configuration; unless it says otherwise, one that the sign-in service knows."""
    identity = ferry.host.identity
    app: dict[str, Value] = {"authority": identity.authority, "ca_file": str(identity.ca_file), **more}
    if "application_id" not in app:
        app["application_id"] = str(uuid.uuid4())
        identity.add_app(str(app["application_id"]))
    if secret:
        file = secret_file(ferry, name)
        file.write_text(secret)
        file.chmod(0o600)
        app["client_secret"] = {"file": str(file)}
    configuration.write_app(ferry.config, name, app, os.environ)


def secret_file(ferry: Ferry, name: str) -> Path:
    """Outside of the folder in which no secret may stand."""
    folder = ferry.folder.with_name(f"{ferry.folder.name}-secrets")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / name


def plant_account(ferry: Ferry, app: str = APP) -> Person:
    """Somebody whose account has this app; not signed in. A daemon that runs knows it."""
    person = ferry.host.new_person()
    account: dict[str, Value] = {"login": person.upn, "app": app, "password": SOME_HASH}
    configuration.write_account(ferry.config, account, os.environ)
    if ferry.daemon is not None:
        ask_daemon(ferry.state_dir, "reload", {})
    return person


def signed_in(ferry: Ferry, app: str = APP) -> Person:
    """The same, signed in; a daemon runs."""
    person = plant_account(ferry, app)
    sign_in_at_once(ferry, own_mailbox(person, ""))
    return person


@contextmanager
def ferry_with(
    host: MailHost, folder: Path, upstreams: Mapping[str, str] | None = None, *, before: Callable[[str], str] = str
) -> Iterator[Ferry]:
    """A configuration of the test's own with an app, changed so before anything reads it; no daemon runs."""
    with closing(Ferry(folder, host, upstreams)) as ferry:
        ferry.config.write_text(before(ferry.config.read_text()))
        plant_app(ferry)
        yield ferry


@pytest.fixture
def own(mail_host: MailHost, tmp_path: Path) -> Iterator[Ferry]:
    """A ferry of the test's own; no daemon runs."""
    with ferry_with(mail_host, tmp_path) as ferry:
        yield ferry


@pytest.fixture
def token_is(mail_host: MailHost, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], str]], None]:
    """From now on the sign-in service gives these access tokens in place of its own."""
    identity = mail_host.identity
    usual = identity.token

    def plant(make: Callable[[], str]) -> None:
        def token(tenant: str, form: dict[str, str]) -> dict[str, Any]:
            answer = usual(tenant, form)
            made = make()
            identity.secrets.add(made)
            return {**answer, "access_token": made}

        monkeypatch.setattr(identity, "token", token)

    return plant


# --- all is well


def test_a_good_account_has_nothing_to_complain_about(ferry: Ferry) -> None:
    person = signed_in(ferry)
    report = examine(ferry, person.upn, exit_code=0)
    assert report.verdict == "ok", [each for each in report.findings if each["verdict"] != "ok"]
    checks = {each["check"] for each in report.findings}
    assert checks >= {
        *("configuration", "files", "daemon", "ports", "descriptors", "proxy", "dns", "tls", "clock"),
        *("registration", "sign_in", "token", "imap", "pop3", "smtp", "throttling"),
    }
    report.the("token", "ok", "IMAP.AccessAsUser.All", "SMTP.Send", person.upn)
    report.the("daemon", "ok", str(ferry.daemon.process.pid if ferry.daemon else ""))


def test_account_test_tries_everything_and_the_account_is_connected(ferry: Ferry) -> None:
    person = signed_in(ferry)
    told = ferry.run("account", "test", person.upn)
    assert told.output.count("\nok ") + told.output.startswith("ok ") == 3
    assert "All of it works." in told.output
    assert ferry.state(person) == "connected"
    assert [test["verdict"] for test in try_account(ferry, person.upn, 0)] == ["ok", "ok", "ok"]
    assert ferry.host.dovecot.messages(person.upn) == [], "nothing was sent"


def test_both_work_without_a_daemon_and_the_doctor_says_that_none_runs(own: Ferry) -> None:
    person = plant_account(own)
    own.sign_in(person)
    assert [test["verdict"] for test in try_account(own, person.upn, 0)] == ["ok", "ok", "ok"]
    report = examine(own, person.upn, exit_code=0)
    assert report.verdict == "warn"
    report.the("daemon", "warn", "No daemon runs", "mailferry serve", '"fault": "mailferry"')
    report.the("smtp", "ok", person.upn)


def test_it_speaks_like_a_person(ferry: Ferry) -> None:
    person = plant_account(ferry)
    said = ferry.run("doctor", person.upn, exit_code=3).output
    assert f"Sign-in of {person.upn}: Nobody has signed in" in " ".join(said.split())
    assert "Whose fault: the mail program or the person at it. Who must act: the mailbox's user." in said
    assert f"What to do: Run: mailferry sign-in {person.upn}" in said
    assert "1 failure. Begin with: Sign-in of" in said


# --- the app registration


def test_a_wrong_tenant(ferry: Ferry) -> None:
    identity, known = ferry.host.identity, str(uuid.uuid4())
    identity.add_app(known)
    tenant = str(uuid.uuid4())
    plant_app(ferry, "wrong-tenant", application_id=known, authority=f"{identity.base}/{tenant}")
    person = plant_account(ferry, "wrong-tenant")
    report = examine(ferry, person.upn)
    report.blames("registration", "mailferry", f"knows no directory '{tenant}'", "Directory (tenant) ID", "authority")


def test_a_wrong_application_id_is_told_apart_from_a_wrong_tenant(ferry: Ferry) -> None:
    plant_app(ferry, "wrong-id", application_id=(wrong := str(uuid.uuid4())))
    person = plant_account(ferry, "wrong-id")
    report = examine(ferry, person.upn)
    report.blames("registration", "mailferry", "The directory exists", wrong, "application_id", "Overview")


def test_public_client_flows_switched_off(ferry: Ferry) -> None:
    ferry.host.identity.add_app(own_id := str(uuid.uuid4()), public=False, secret="never~configured~here~1234567890")
    plant_app(ferry, "not-public", application_id=own_id)
    person = plant_account(ferry, "not-public")
    examine(ferry, person.upn).blames("registration", "mailferry", "Allow public client flows", "client_secret")


def test_a_wrong_client_secret(ferry: Ferry) -> None:
    ferry.host.identity.add_app(own_id := str(uuid.uuid4()), public=False, secret="right~right~right~right~right~12")
    plant_app(ferry, "wrong-secret", application_id=own_id, secret="wrong~wrong~wrong~wrong~wrong~12")
    person = plant_account(ferry, "wrong-secret")
    examine(ferry, person.upn).blames("registration", "mailferry", "secret is wrong", "Value")


def test_an_expired_client_secret(ferry: Ferry) -> None:
    identity = ferry.host.identity
    identity.add_app(own_id := str(uuid.uuid4()), public=False, secret="old~old~old~old~old~old~old~old12")
    plant_app(ferry, "old-secret", application_id=own_id, secret="old~old~old~old~old~old~old~old12")
    person = plant_account(ferry, "old-secret")
    identity.fail(Failure.SECRET_EXPIRED)
    try:
        examine(ferry, person.upn).blames("registration", "mailferry", "has expired", "new client secret")
    finally:
        identity.heal()


def test_a_redirect_address_that_is_not_registered(ferry: Ferry) -> None:
    ferry.host.identity.add_app(own_id := str(uuid.uuid4()), redirect_uris=("http://localhost/somewhere-else",))
    plant_app(ferry, "no-redirect", application_id=own_id)
    person = plant_account(ferry, "no-redirect")
    examine(ferry, person.upn).blames("registration", "mailferry", "redirect address is not registered", "localhost")


def test_a_consent_that_is_gone(ferry: Ferry) -> None:
    app = ferry.host.identity.add_app(own_id := str(uuid.uuid4()))
    plant_app(ferry, "no-consent", application_id=own_id)
    person = plant_account(ferry, "no-consent")
    sign_in_at_once(ferry, own_mailbox(person, ""))
    ferry.host.identity.sign_in_as("nobody@contoso.com")  # the authorize page then says nothing of consent
    app.consented = False
    report = examine(ferry, person.upn, exit_code=3)
    report.blames("sign_in", "microsoft_sign_in", "consent", f"mailferry sign-in {person.upn}", who="user")


def test_an_administrator_who_must_consent(ferry: Ferry) -> None:
    person = signed_in(ferry)
    ferry.host.identity.fail(Failure.ADMIN_CONSENT_NEEDED)
    try:
        report = examine(ferry, person.upn)
    finally:
        ferry.host.identity.heal()
    found = report.the("sign_in", "fail", "administrator", "adminconsent")
    assert (found["fault"], found["who"]) == ("microsoft_sign_in", "administrator")


def test_an_app_that_is_switched_off(ferry: Ferry) -> None:
    ferry.host.identity.add_app(own_id := str(uuid.uuid4()))
    plant_app(ferry, "asleep", application_id=own_id)
    person = plant_account(ferry, "asleep")
    ferry.run("app", "change", "asleep", "--disable")
    report = examine(ferry, person.upn)
    report.blames("registration", "mailferry", "switched off", "mailferry app change asleep --enable")
    (test,) = try_account(ferry, person.upn, 2)
    assert test["remedy"] == "Switch it on: mailferry app change asleep --enable"


# --- the sign-in and its token


def test_an_account_without_a_sign_in(ferry: Ferry) -> None:
    person = plant_account(ferry)
    report = examine(ferry, person.upn, exit_code=3)
    report.blames("sign_in", "client", "Nobody has signed in", f"mailferry sign-in {person.upn}", who="user")
    (test,) = try_account(ferry, person.upn, 3)
    assert test["remedy"] == f"Run: mailferry sign-in {person.upn}"


def test_a_sign_in_that_is_under_way_is_a_warning(ferry: Ferry) -> None:
    person = plant_account(ferry)
    command = ferry.start("sign-in", person.upn, "--device")
    code = command.read(USER_CODE)
    report = examine(ferry, person.upn, exit_code=0)
    assert code not in json.dumps(report.findings)
    report.the("sign_in", "warn", "under way", "Finish the sign-in", '"who": "user"')
    ferry.host.identity.approve_device(code, person.upn)
    command.end(0)


def test_a_token_for_somebody_elses_door(ferry: Ferry, token_is: Callable[[Callable[[], str]], None]) -> None:
    person = signed_in(ferry)
    token_is(lambda: ferry.host.identity.issue(person.upn, scopes=GRAPH))
    report = examine(ferry, person.upn)
    report.blames("token", "mailferry", "made for https://graph.microsoft.com", "outlook.office", "sign-in")


def test_a_token_without_the_right_to_send(ferry: Ferry, token_is: Callable[[Callable[[], str]], None]) -> None:
    person = signed_in(ferry)
    token_is(lambda: ferry.host.identity.issue(person.upn, scopes=EXCHANGE_SCOPES[:2]))
    report = examine(ferry, person.upn)
    report.blames("token", "mailferry", "lacks SMTP.Send", "API permissions", "refuse sending")


def test_another_persons_token(ferry: Ferry, token_is: Callable[[Callable[[], str]], None]) -> None:
    person, other = signed_in(ferry), ferry.host.new_person()
    token_is(lambda: ferry.host.identity.issue(other.upn))
    report = examine(ferry, person.upn)
    report.blames("token", "client", f"belongs to {other.upn}", f"account is for {person.upn}", "sign_in:", who="user")
    report.the("imap", "fail")


def test_a_grant_that_was_revoked(ferry: Ferry) -> None:
    person = signed_in(ferry)
    ferry.host.identity.revoke(person.upn)
    report = examine(ferry, person.upn, exit_code=3)
    report.blames("sign_in", "microsoft_sign_in", "AADSTS50173", "correlation id", who="user")


def test_a_sign_in_service_that_is_down_leaves_the_token_in_hand(ferry: Ferry) -> None:
    person = signed_in(ferry)
    ferry.host.identity.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    try:
        report = examine(ferry, person.upn, exit_code=0)
    finally:
        ferry.host.identity.heal()
    report.the("registration", "warn", "HTTP 503", "microsoft_sign_in", "nobody")
    report.the("sign_in", "warn", "token in hand is still good")
    report.the("imap", "ok")


def test_a_networks_log_in_page(ferry: Ferry) -> None:
    person = signed_in(ferry)
    ferry.host.identity.fail(Failure.HTML_PAGE, at=(DISCOVERY,))
    try:
        report = examine(ferry, person.upn)
    finally:
        ferry.host.identity.heal()
    report.blames("registration", "network", "log-in page", "browser")


# --- this machine


def test_a_clock_that_is_wrong(ferry: Ferry, monkeypatch: pytest.MonkeyPatch) -> None:
    person = signed_in(ferry)
    hour_s = 3600
    monkeypatch.setattr(
        http.server.BaseHTTPRequestHandler, "date_time_string", lambda *_: formatdate(time() - hour_s, usegmt=True)
    )
    report = examine(ferry, person.upn)
    report.blames("clock", "mailferry", "60 minutes ahead of that of localhost", "timedatectl set-ntp true")


def test_a_proxy_that_is_not_there(own: Ferry) -> None:
    person = plant_account(own)
    port = free_port()
    report = examine(
        own, person.upn, environment={"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "", "no_proxy": ""}
    )
    report.blames("proxy", "network", f"through the proxy 127.0.0.1:{port}", "refuses", "Unset HTTPS_PROXY")


def test_a_port_that_another_program_has(own: Ferry) -> None:
    person = plant_account(own)
    port = own.ports["imap"]
    with socket.create_server(("127.0.0.1", port)):
        report = examine(own, person.upn)
    comm = Path("/proc/self/comm").read_text().strip()
    report.blames("ports", "mailferry", f"taken by {comm} (process {os.getpid()})", "port")


def test_a_daemon_that_does_not_listen_where_the_configuration_says(own: Ferry) -> None:
    person = plant_account(own)
    own.serve()
    before, after = own.ports["pop3"], free_port()
    own.config.write_text(own.config.read_text().replace(str(before), str(after)))
    report = examine(own, person.upn)
    report.blames("ports", "mailferry", str(after), "restart the daemon")


def test_a_state_folder_that_cannot_be_written(mail_host: MailHost, tmp_path: Path) -> None:
    nowhere = "/proc/mailferry"  # where not even root makes a folder
    with ferry_with(mail_host, tmp_path, before=lambda text: text.replace(str(tmp_path / "state"), nowhere)) as ferry:
        ferry.host.identity.add_app(ferry.application_id)
        report = examine(ferry)
    report.blames("files", "mailferry", nowhere, "cannot make it", "state_dir")


def test_a_state_folder_that_others_may_write(own: Ferry) -> None:
    person = plant_account(own)
    own.state_dir.mkdir()
    own.state_dir.chmod(0o777)
    report = examine(own, person.upn)
    report.blames("files", "mailferry", "Other users may write", f"chmod 700 {own.state_dir}")


def test_a_key_file_that_others_can_read(own: Ferry) -> None:
    plant_account(own)
    Commands(own.config).run("account", "list")  # makes the key
    key = own.state_dir / "mailferry.key"
    key.chmod(0o644)
    report = examine(own, exit_code=2)
    report.blames("configuration", "mailferry", f"{key} is not private", f"Run: chmod 600 {key}")


def test_a_secret_file_that_others_can_read(own: Ferry) -> None:
    plant_app(own, "open-secret", secret="open~open~open~open~open~open~12")
    file = secret_file(own, "open-secret")
    file.chmod(0o644)
    report = examine(own, exit_code=2)
    report.blames("configuration", "mailferry", f"{file} is not private", f"Run: chmod 600 {file}")


# --- the configuration


def test_a_key_that_is_mistyped_and_what_can_be_looked_at_all_the_same(own: Ferry) -> None:
    plant_account(own)
    text = own.config.read_text().replace("listeners:", "lisseners:")
    own.config.write_text(text)
    report = examine(own, exit_code=2)
    report.blames("configuration", "mailferry", "lisseners", "listeners")
    line = text.splitlines().index("lisseners:") + 1
    assert f"line {line}" in report.first_failure()["title"]
    assert {"files", "dns", "tls", "clock", "registration"} <= {each["check"] for each in report.findings}
    report.the("registration", "ok", APP)


def test_a_broken_configuration_beside_a_running_daemon(own: Ferry) -> None:
    own.serve()
    person = signed_in(own)
    own.config.write_text(f"{own.config.read_text()}\nhosstname: x\n")
    report = examine(own, person.upn, exit_code=2)
    report.blames("configuration", "mailferry", "hosstname")
    report.the("configuration", "warn", "still works with what it read before")
    report.the("imap", "ok", person.upn)


def test_an_account_that_is_not_there(ferry: Ferry) -> None:
    report = examine(ferry, "nobody@contoso.com", exit_code=2)
    report.blames("configuration", "mailferry", "no account 'nobody@contoso.com'", "mailferry account")
    assert "no account" in ferry.run("account", "test", "nobody@contoso.com", exit_code=2).errors


# --- the way to Exchange


def test_a_host_without_an_address(mail_host: MailHost, tmp_path: Path) -> None:
    upstream = {"imap": "{host: imap.nowhere.invalid, port: 993, tls: implicit}"}
    with ferry_with(mail_host, tmp_path, upstream) as ferry:
        person = plant_account(ferry)
        report = examine(ferry, person.upn)
    report.blames("dns", "network", "no address for imap.nowhere.invalid", "upstreams.imap.host")
    assert [each for each in report.findings if each["check"] == "tls" and "nowhere" in each["title"]] == []


def test_a_port_that_refuses(mail_host: MailHost, tmp_path: Path) -> None:
    port = free_port()
    with ferry_with(mail_host, tmp_path, {"smtp": f"{{host: localhost, port: {port}, tls: starttls}}"}) as ferry:
        ferry.serve()
        person = signed_in(ferry)
        report = examine(ferry, person.upn)
        report.blames("tls", "network", f"Sending at localhost:{port}", "refuses the connection", "upstreams.smtp")
        report.the("imap", "ok")
        assert [each for each in report.findings if each["check"] == "smtp"] == [], "it is told once"
        tests = try_account(ferry, person.upn, 1)
        assert [test["verdict"] for test in tests] == ["ok", "ok", "fail"]
        assert (tests[2]["fault"], f"localhost:{port}" in tests[2]["cause"]) == ("network", True)


@contextmanager
def tls_server(certificate: LocalCertificate, address: str = "127.0.0.1") -> Iterator[int]:
    """Shakes hands and says nothing."""
    with socket.create_server((address, 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                try:
                    with certificate.server_context().wrap_socket(plain, server_side=True) as line:
                        line.recv(1)
                except OSError:
                    plain.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_box_on_the_way_that_opens_tls(mail_host: MailHost, tmp_path: Path) -> None:
    box = make_authority(tmp_path, "Contoso TLS Inspection", "Contoso Security")
    with tls_server(box) as port:
        ca = mail_host.certificate.ca_file
        upstream = {"imap": f"{{host: localhost, port: {port}, tls: implicit, ca_file: {ca}}}"}
        with ferry_with(mail_host, tmp_path, upstream) as ferry:
            person = plant_account(ferry)
            report = examine(ferry, person.upn)
    report.blames(
        "tls", "network", "Contoso TLS Inspection", "Contoso Security", "upstreams.imap.ca_file", "opens the TLS"
    )
    assert len(report.first_failure()["details"]) >= 1, "the chain is shown"


def test_a_certificate_for_another_name(mail_host: MailHost, tmp_path: Path) -> None:
    with tls_server(mail_host.certificate, "127.0.0.2") as port:
        ca = mail_host.certificate.ca_file
        upstream = {"imap": f"{{host: 127.0.0.2, port: {port}, tls: implicit, ca_file: {ca}}}"}
        with ferry_with(mail_host, tmp_path, upstream) as ferry:
            person = plant_account(ferry)
            report = examine(ferry, person.upn)
    report.blames("tls", "network", "is for localhost", "not for 127.0.0.2", "upstreams.imap.host")


# --- Exchange itself


def bystander(wire: Wire) -> bytes:
    """The doctor looks at TLS alone."""
    return b""


@pytest.fixture(scope="module")
def scripted(mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ferry, Exchange]]:
    """A daemon, and behind it an Exchange that says what it is told."""
    with Exchange(mail_host.certificate, starttls=False) as exchange:
        ca = mail_host.certificate.ca_file
        upstreams = {
            protocol: f"{{host: 127.0.0.1, port: {exchange.port(protocol)}, tls: implicit, ca_file: {ca}}}"
            for protocol in OFFERS
        }
        with ferry_with(mail_host, tmp_path_factory.mktemp("scripted"), upstreams) as ferry:
            ferry.serve()
            yield ferry, exchange


def imap_says(reply: str) -> Part:
    def part(wire: Wire) -> bytes:
        wire.send(b"* OK Microsoft Exchange IMAP4 service ready.\r\n")
        tag = wire.line().partition(b" ")[0]
        wire.send(tag + f" {reply}\r\n".encode())
        return wire.rest()

    return part


def not_connected(wire: Wire) -> bytes:
    wire.send(b"* OK Microsoft Exchange IMAP4 service ready.\r\n")
    tag = wire.line().partition(b" ")[0]
    wire.send(tag + b" OK AUTHENTICATE completed.\r\n")
    tag = wire.line().partition(b" ")[0]
    wire.send(tag + b" BAD User is authenticated but not connected.\r\n* BYE Connection closed. 14\r\n")
    return wire.rest()


def smtp_says(*replies: str) -> Part:
    """These replies, to the token, to MAIL FROM, to RSET."""

    def part(wire: Wire) -> bytes:
        wire.send(b"220 outlook.test Microsoft ESMTP MAIL Service ready\r\n")
        assert wire.line().startswith(b"EHLO ")
        wire.send(ehlo_answer(*OFFERS["smtp"]))
        wire.expect(b"AUTH XOAUTH2\r\n")
        wire.send(b"334 \r\n")
        for reply, command in zip(replies, (b"", b"MAIL FROM:<", b"RSET"), strict=False):
            assert wire.line().startswith(command)
            wire.send(f"{reply}\r\n".encode())
        return wire.rest()

    return part


def good_visit(protocol: str) -> Part:
    def part(wire: Wire) -> bytes:
        let_in(wire, protocol)
        return wire.rest()

    return smtp_says("235 2.7.0 Good", "250 2.1.0 Sender OK", "250 2.0.0 Reset") if protocol == "smtp" else part


@pytest.mark.parametrize(
    ("protocol", "part", "check", "verdict", "fault", "words"),
    [
        (
            "imap",
            imap_says("NO AUTHENTICATE failed."),
            "imap",
            "fail",
            "exchange",
            ("refused the token", "Set-CASMailbox"),
        ),
        ("imap", not_connected, "imap", "fail", "exchange", ("opens no mailbox", "Full Access")),
        (
            "imap",
            imap_says("BAD Request is throttled. Suggested Backoff Time: 10 milliseconds"),
            *("throttling", "warn", "exchange", ("too many connections", "imap_connections")),
        ),
        (
            "smtp",
            smtp_says("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
            *("smtp", "fail", "exchange", ("SMTP AUTH", "SmtpClientAuthenticationDisabled $false")),
        ),
        (
            "smtp",
            smtp_says("235 2.7.0 Good", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
            *("smtp", "fail", "exchange", ("may not send", "Send As", "mail sent")),
        ),
    ],
    ids=["imap_disabled", "not_connected", "throttled", "smtp_auth_disabled", "sender_refused"],
)
def test_what_exchange_says_no_to(
    scripted: tuple[Ferry, Exchange],
    protocol: str,
    part: Part,
    check: str,
    verdict: str,
    fault: str,
    words: tuple[str, ...],
) -> None:
    ferry, exchange = scripted
    person = signed_in(ferry)
    for each in OFFERS:
        announce(exchange, each, bystander, part if each == protocol else good_visit(each))
    report = examine(ferry, person.upn, exit_code=1 if verdict == "fail" else 0)
    found = report.the(check, verdict, *words)
    assert found["fault"] == fault
    assert [each["check"] for each in report.findings if each["verdict"] == "fail"] == [check] * (verdict == "fail")


# --- the report to hand on


def test_the_bundle_is_private_and_tells_no_names(ferry: Ferry) -> None:
    person = signed_in(ferry)
    refused.imap(ferry, "mallory", "wrong")
    file = ferry.folder / "report.txt"
    told = ferry.run("doctor", person.upn, "--bundle", str(file))
    assert str(file) in told.errors
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    for name in (person.upn, "contoso.com", "mallory", ferry.application_id, "$scrypt"):
        assert name not in text
    assert "address-1@domain-1" in text
    assert "Findings" in text
    assert re.search(r"warning login refused .*peer=\(left out\) login=\(left out\)", text)
