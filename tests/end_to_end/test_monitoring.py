"""/metrics and /health of the real daemon; and a real Prometheus reads it, by our files of `systemd/monitoring/`."""

from __future__ import annotations

import imaplib
import json
import resource
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest

from tests.end_to_end.ferry import COMMAND_DEADLINE_S, ROOT, Ferry
from tests.end_to_end.programs import Curl, Security
from tests.monitoring.test_dashboard import queries
from tests.servers.child import Child, free_port, program, wait_until
from tests.servers.mailhost import MailHost, Person

MONITORING = ROOT / "systemd" / "monitoring"
SCRAPE_EVERY_S = 1
LETTER = b"Subject: Ahoy\r\n\r\nSent with a plain password.\r\n"
Samples = dict[tuple[str, frozenset[str]], float]


class WatchedFerry(Ferry):
    """One with a page."""

    def __init__(self, folder: Path, host: MailHost) -> None:
        self.page_port = free_port()
        super().__init__(folder, host)

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        return super().configuration(upstreams).replace("page: off", f"page: localhost:{self.page_port}")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.page_port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as answer:
            return answer.code, answer.read().decode()

    def samples(self) -> Samples:
        """What is told now, by name and labels."""
        status, text = self.get("/metrics")
        assert status == 200
        found: Samples = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                name, _, labels = sample.removesuffix("}").partition("{")
                found[name, frozenset(filter(None, labels.split(",")))] = float(value)
        return found

    def sample(self, name: str, **labels: str) -> float:
        return self.samples()[f"mailferry_{name}", frozenset(f'{key}="{value}"' for key, value in labels.items())]

    def nobody_is_left(self) -> bool:
        return all(self.sample("connections", protocol=protocol) == 0 for protocol in self.ports)


@pytest.fixture(scope="module")
def watched(mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedFerry]:
    with closing(WatchedFerry(tmp_path_factory.mktemp("watched"), mail_host)) as ferry:
        ferry.app_add()
        ferry.serve()
        yield ferry


@pytest.fixture(scope="module")
def person(watched: WatchedFerry) -> Person:
    return watched.ready_account()


def refused(ferry: Ferry, login: str, password: str) -> None:
    with (
        imaplib.IMAP4("localhost", ferry.ports["imap"], timeout=COMMAND_DEADLINE_S) as client,
        pytest.raises(client.error),
    ):
        client.login(login, password)


def test_the_numbers_are_right(watched: WatchedFerry, person: Person) -> None:
    """Each login by its outcome and protocol, each refresh, each octet; and nobody's name."""
    before = watched.samples()
    assert {name for name, _ in before if "expiry" in name} == {
        "mailferry_token_expiry_timestamp_seconds",
        "mailferry_refresh_token_expiry_timestamp_seconds",
    }
    stranger = watched.host.new_person()
    password = watched.account_add(stranger)
    curl = Curl(watched, person.upn, watched.passwords[person.upn])
    stored = watched.host.deliver(person, b"Subject: Land in sight\r\n\r\nThe harbour lies ahead.\r\n")

    for _ in range(2):
        assert watched.logs_in(person)
    assert curl.read("pop3", Security.TLS).output == stored
    assert curl.send(Security.STARTTLS, person.upn, LETTER).exit_code == 0
    refused(watched, person.upn, "not the password")
    refused(watched, stranger.upn, password)
    wait_until("all sessions are closed", watched.nobody_is_left)

    after = watched.samples()

    def rise(name: str, *labels: str) -> float:
        sample = (f"mailferry_{name}", frozenset(labels))
        return after[sample] - before[sample]

    imap, pop3, smtp = (f'protocol="{protocol}"' for protocol in ("imap", "pop3", "smtp"))
    accepted = 'outcome="accepted"'
    assert [rise("logins_total", accepted, each) for each in (imap, pop3, smtp)] == [2, 1, 1]
    assert rise("logins_total", 'outcome="bad_credentials"', imap) == 1
    assert rise("logins_total", 'outcome="sign_in_needed"', imap) == 1
    logins = {sample: value - before[sample] for sample, value in after.items() if sample[0].endswith("logins_total")}
    assert sum(logins.values()) == 6, "and no other"
    assert rise("login_seconds_count", imap) == 2
    assert [rise("login_step_seconds_count", f'step="{step}"') for step in ("token", "connect", "upstream_login")] == [
        4,
        4,
        4,
    ]
    assert rise("login_step_seconds_count", 'step="password"') == 5, "the wrong one was no step that is done"
    assert rise("relayed_bytes_total", pop3, 'direction="down"') > len(stored)
    assert rise("relayed_bytes_total", smtp, 'direction="up"') > len(LETTER)
    assert after["mailferry_accounts", frozenset({'state="connected"'})] == 1
    assert after["mailferry_accounts", frozenset({'state="sign_in_needed"'})] == 1
    told = watched.get("/metrics")[1]
    assert not [name for name in (person.upn, stranger.upn, "@", "contoso") if name in told]


def test_a_session_is_weighed_while_it_runs(watched: WatchedFerry, person: Person) -> None:
    before = watched.sample("relayed_bytes_total", protocol="imap", direction="down")
    with imaplib.IMAP4("localhost", watched.ports["imap"], timeout=COMMAND_DEADLINE_S) as client:
        client.login(person.upn, watched.passwords[person.upn])
        client.select()
        assert watched.sample("sessions", protocol="imap") == 1
        assert watched.sample("connections", protocol="imap") == 1
        assert watched.sample("relayed_bytes_total", protocol="imap", direction="down") > before
    wait_until("the session is closed", watched.nobody_is_left)
    assert watched.sample("sessions", protocol="imap") == 0


def test_health(watched: WatchedFerry) -> None:
    status, text = watched.get("/health")
    assert (status, json.loads(text)["status"]) == (200, "ok")


def test_ill_health_while_nobody_can_come_in(watched: WatchedFerry) -> None:
    """No descriptor is left. Who asks has come before that: there is none for him either."""
    assert watched.daemon is not None
    process = watched.daemon.process.pid
    told_before = len(watched.log_lines("cannot accept"))
    with ExitStack() as stack:
        asking = stack.enter_context(socket.create_connection(("localhost", watched.page_port), 30))
        wait_until("the page has him", lambda: watched.get("/health")[0] == 200)
        limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
        stack.callback(resource.prlimit, process, resource.RLIMIT_NOFILE, limits)
        resource.prlimit(process, resource.RLIMIT_NOFILE, (3, limits[1]))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", watched.ports["imap"]), 30))
        wait_until("it says so", lambda: len(watched.log_lines("cannot accept")) > told_before)
        asking.sendall(f"GET /health HTTP/1.1\r\nHost: localhost:{watched.page_port}\r\n\r\n".encode())
        head, _, body = asking.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["reasons"] == [f"no connection is accepted at 127.0.0.1 {watched.ports['imap']}"]
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        assert client.recv(4).startswith(b"* OK"), "who waited is served"
    wait_until("it is well again", lambda: watched.get("/health")[0] == 200)


class Prometheus:
    """The real one, beside the ferry and with our files, in a folder of its own."""

    def __init__(self, folder: Path, ferry: WatchedFerry) -> None:
        rules = folder / "mailferry.rules.yml"
        rules.write_text((MONITORING / rules.name).read_text())
        ours = (MONITORING / "prometheus.yml").read_text()
        for usual, here in (
            ("localhost:8143", f"localhost:{ferry.page_port}"),
            (f"/etc/prometheus/{rules.name}", str(rules)),
        ):
            assert usual in ours
            ours = ours.replace(usual, here)
        often = f"global: {{scrape_interval: {SCRAPE_EVERY_S}s, evaluation_interval: {SCRAPE_EVERY_S}s}}\n"
        (folder / "prometheus.yml").write_text(often + ours)
        self._port = free_port()
        command = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._child = Child("prometheus", command, folder / "prometheus.log")
        self._child.wait_ready(self._answers)

    def close(self) -> None:
        self._child.stop()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("query", query="up"))
        except OSError:
            return False

    def ask(self, what: str, **query: str) -> Any:
        """Raises: HTTPError: it does not understand the question."""
        address = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urlencode(query)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
            return json.load(answer)["data"]

    def value(self, query: str) -> float | None:
        """Of the only series that it gives; None without one."""
        series = self.ask("query", query=query)["result"]
        return float(series[0]["value"][1]) if len(series) == 1 else None

    def alert(self, name: str) -> str:
        """Its state: inactive, pending, firing."""
        (group,) = self.ask("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}, group
        (state,) = [str(rule["state"]) for rule in group["rules"] if rule["name"] == name]
        return state


def test_prometheus_reads_it(watched: WatchedFerry, person: Person, tmp_path: Path) -> None:
    assert watched.logs_in(person)
    accepted = watched.sample("logins_total", protocol="imap", outcome="accepted")
    waiting = watched.host.new_person()
    watched.account_add(waiting)
    with closing(Prometheus(tmp_path, watched)) as prometheus:
        wait_until("it has read", lambda: prometheus.value('up{job="mailferry"}') == 1)
        assert prometheus.value('mailferry_logins_total{protocol="imap",outcome="accepted"}') == accepted
        assert prometheus.value("mailferry_client_secret_expiry_timestamp_seconds") is None
        wait_until("an alert is due", lambda: prometheus.alert("MailferrySignInNeeded") == "pending")
        assert prometheus.alert("MailferryDown") == "inactive"
        for query in queries():
            prometheus.ask("query", query=query)
        watched.stop()
        wait_until("it misses mailferry", lambda: prometheus.alert("MailferryDown") == "pending")
    watched.serve()
