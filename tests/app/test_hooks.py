"""Notes to people: what is told and when, on a fake clock; then real commands and a real webhook."""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from twisted.internet.task import Clock

from proxy.accounts.states import IDLE_WARNING_S, REFRESH_IDLE_LIFE_S, AccountStates, State, TokenCondition, Trouble
from proxy.app import hooks as hooks_module
from proxy.app.hooks import LOOK_EVERY_S, MAX_TEXT_CHARACTERS, NOTE_EVERY_S, SETTLE_S, Hooks, Note, NotTold, post, run
from proxy.app.hooks import Reactor as HooksReactor
from proxy.config import Account, App, Config, read
from proxy.config.settings import Notify, Secret
from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.login import Fault, LoginRefused, Refusal
from tests.accounts.fakes import ALICE, APP, NOW_S, account
from tests.servers.child import wait_until

NEEDED = TokenCondition(State.SIGN_IN_NEEDED, trouble=Trouble("The grant was revoked.", Fault.MICROSOFT_SIGN_IN))
GOOD = TokenCondition(None, NOW_S + 3600)
REFUSED = LoginRefused(Refusal.REFUSED_UPSTREAM, "IMAP is off.", fault=Fault.EXCHANGE, remedy="Switch it on.")
SOMEBODY = Notify(command=("/bin/true",))
NOTE = Note("sign_in_needed", "a@b", "work", "sign_in_needed", "why\x1b[2J\nso", "Run: x", "exchange", "mailferry: so")
SHORT_S = 0.3


class DirectPool:
    """Threads that are none: the work is done at once."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class House:
    """Hooks on a clock, and what was told; `now` follows the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *accounts: Account, notify: Notify = SOMEBODY) -> None:
        self.clock = Clock()
        self.states = AccountStates(lambda: NOW_S + self.clock.seconds())
        self.notes: list[Note] = []
        self.fails = False
        self.hooks = Hooks(
            self.config(*(accounts or (ALICE,)), notify=notify),
            self.states,
            cast("HooksReactor", self.clock),
            self._tell,
        )
        monkeypatch.setattr(hooks_module, "deferToThreadPool", self._at_once)
        monkeypatch.setattr(self.hooks, "_pool", DirectPool())
        self.held: list[Any] = []
        self.holds = False

    def config(self, *accounts: Account, notify: Notify = SOMEBODY) -> Config:
        apps: dict[str, App] = {each.app.name: each.app for each in accounts}
        return replace(read(None, {}).config, accounts=accounts, apps=apps, notify=notify)

    def _tell(self, notify: Notify, note: Note) -> None:
        self.notes.append(note)
        if self.fails:
            raise NotTold("the webhook at chat.example.com answered 500")

    def _at_once(self, reactor: object, pool: object, work: Any, *arguments: Any) -> Any:
        from twisted.internet.defer import Deferred, maybeDeferred

        if self.holds:
            self.held.append(held := Deferred[None]())
            return held
        return maybeDeferred(work, *arguments)

    def settled(self, seconds: float = SETTLE_S) -> list[tuple[str, str]]:
        """What was told since the last time, after some time."""
        self.clock.advance(seconds)
        told, self.notes = self.notes, []
        return [(note.event, note.login or note.app) for note in told]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    house = House(monkeypatch)
    house.hooks.start()
    return house


# --- what is told, and when


def test_a_sign_in_that_is_needed_is_told_once_and_its_end_too(house: House) -> None:
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.settled(SETTLE_S - 1) == [], "it may be over in a moment"
    house.clock.advance(1)
    (note,) = house.notes
    assert (note.event, note.login, note.state) == ("sign_in_needed", ALICE.name, "sign_in_needed")
    assert (note.reason, note.fault) == ("The grant was revoked.", "microsoft_sign_in")
    assert note.remedy == f"Run: mailferry sign-in {ALICE.name}"
    assert note.reason in note.text
    assert note.remedy in note.text
    house.notes.clear()
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.settled(3 * LOOK_EVERY_S) == []
    house.states.token_changed(ALICE.identity, TokenCondition(State.SIGNING_IN))
    assert house.settled() == []
    house.states.token_changed(ALICE.identity, GOOD)
    assert house.settled() == [("recovered", ALICE.name)]
    assert house.settled(3 * LOOK_EVERY_S) == []


def test_what_is_over_in_a_moment_is_not_told(house: House) -> None:
    house.states.token_changed(ALICE.identity, NEEDED)
    house.clock.advance(SETTLE_S / 2)
    house.states.token_changed(ALICE.identity, GOOD)
    assert house.settled(LOOK_EVERY_S) == []


def test_a_refusal_is_over_when_a_login_works(house: House) -> None:
    house.states.token_changed(ALICE.identity, GOOD)
    house.states.login_failed(ALICE, REFUSED)
    assert house.settled() == [("authentication_error", ALICE.name)]
    house.states.signed_in(ALICE.identity)
    assert house.settled(LOOK_EVERY_S) == [], "connecting is a hope"
    house.states.login_succeeded(ALICE)
    assert house.settled() == [("recovered", ALICE.name)]


def test_what_passes_by_itself_is_not_told(house: House) -> None:
    house.states.token_changed(ALICE.identity, GOOD)
    house.states.login_failed(ALICE, replace_refusal(Refusal.TRY_LATER))
    assert house.settled(LOOK_EVERY_S) == []
    house.states.login_succeeded(ALICE)
    assert house.settled(LOOK_EVERY_S) == [], "nobody was worried"


def replace_refusal(refusal: Refusal) -> LoginRefused:
    return LoginRefused(refusal, "later", fault=Fault.NETWORK)


def test_an_account_that_comes_and_goes_is_told_rarely_and_at_last_as_it_is(house: House) -> None:
    told = []
    for _ in range(60):  # an hour of it
        house.states.token_changed(ALICE.identity, NEEDED)
        told += house.settled(30)
        house.states.token_changed(ALICE.identity, GOOD)
        told += house.settled(30)
    assert 0 < len(told) <= 3600 / NOTE_EVERY_S + 1
    house.states.token_changed(ALICE.identity, NEEDED)
    told += house.settled(2 * NOTE_EVERY_S)
    assert told[-1] == ("sign_in_needed", ALICE.name)


def test_each_account_is_told_of_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    bob = account("bob@contoso.com")
    house = House(monkeypatch, ALICE, bob)
    house.hooks.start()
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.settled() == [("sign_in_needed", ALICE.name)]
    house.states.token_changed(bob.identity, NEEDED)
    assert house.settled() == [("sign_in_needed", bob.name)]


def test_a_sign_in_that_nobody_uses_is_told_before_it_ends(house: House) -> None:
    refreshed_s = NOW_S - REFRESH_IDLE_LIFE_S + IDLE_WARNING_S + LOOK_EVERY_S / 2
    house.states.token_changed(ALICE.identity, replace(GOOD, refreshed_at_s=refreshed_s))
    assert house.settled() == []
    assert house.settled(LOOK_EVERY_S) == [("refresh_token_expiring", ALICE.name)], "time alone did it"
    assert house.settled(3 * LOOK_EVERY_S) == []
    house.states.token_changed(ALICE.identity, replace(GOOD, refreshed_at_s=NOW_S + house.clock.seconds()))
    assert house.settled(LOOK_EVERY_S) == []


def test_a_client_secret_that_ends_is_told_once_for_its_app(monkeypatch: pytest.MonkeyPatch) -> None:
    day = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC).date() + datetime.timedelta(days=10)
    app = replace(APP, client_secret_expires=day)
    house = House(monkeypatch, replace(ALICE, app=app), replace(account("bob@contoso.com"), app=app))
    house.hooks.start()
    assert house.settled() == [("client_secret_expiring", app.name)]
    assert house.settled(3 * LOOK_EVERY_S) == []
    house.hooks.use(house.config(ALICE))
    house.settled(LOOK_EVERY_S)
    house.hooks.use(house.config(replace(ALICE, app=app)))
    assert house.settled(LOOK_EVERY_S) == [("client_secret_expiring", app.name)], "a new one ends too"


def test_nobody_is_told_where_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, notify=Notify())
    house.hooks.start()
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.settled() == []
    house.hooks.use(house.config(ALICE))
    assert house.settled() == [("sign_in_needed", ALICE.name)], "named at last"


def test_a_note_that_fails_is_logged_and_the_next_one_comes(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.fails = True
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.settled() == [("sign_in_needed", ALICE.name)]
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["fields"]["reason"]) == (
        "nobody was told",
        "the webhook at chat.example.com answered 500",
    )
    house.fails = False
    house.states.token_changed(ALICE.identity, GOOD)
    assert house.settled(NOTE_EVERY_S) == [("recovered", ALICE.name)]
    counted = house.hooks._metrics.registry.get_sample_value
    assert [counted("mailferry_notes_total", {"outcome": outcome}) for outcome in ("told", "failed")] == [1, 1]


def test_so_many_wait_and_the_rest_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks_module, "MAX_WAITING", 2)
    people = [account(f"{name}@contoso.com") for name in ("one", "two", "three")]
    house = House(monkeypatch, *people)
    house.hooks.start()
    house.holds = True
    for each in people:
        house.states.token_changed(each.identity, NEEDED)
    house.settled()
    assert len(house.held) == 2
    house.holds = False
    for held in house.held:
        held.callback(None)
    assert house.settled() == [("sign_in_needed", people[2].name)]


def test_after_the_end_nothing_is_due(house: House) -> None:
    house.hooks.stop()
    house.states.token_changed(ALICE.identity, NEEDED)
    assert house.clock.getDelayedCalls() == []


# --- a command


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_a_command_finds_the_note_in_its_environment_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "the~Secret~Value")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    run(shell(f"env >{tmp_path}/env; pwd >{tmp_path}/pwd; readlink /proc/$$/fd/0 >{tmp_path}/stdin"), NOTE)
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    ours = {name: value for name, value in found.items() if name.startswith("MAILFERRY_")}
    assert ours == {
        "MAILFERRY_EVENT": "sign_in_needed",
        "MAILFERRY_LOGIN": "a@b",
        "MAILFERRY_APP": "work",
        "MAILFERRY_STATE": "sign_in_needed",
        "MAILFERRY_REASON": "why [2J so",
        "MAILFERRY_REMEDY": "Run: x",
        "MAILFERRY_FAULT": "exchange",
        "MAILFERRY_TEXT": "mailferry: so",
    }
    assert not {"CLIENT_SECRET", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"} & found.keys()
    assert (tmp_path / "pwd").read_text() == "/\n"
    assert (tmp_path / "stdin").read_text() == "/dev/null\n"


def test_arguments_are_no_shell_s(tmp_path: Path) -> None:
    note = replace(NOTE, login="$(touch /tmp/x); `id`")
    script = f"import os, sys; open('{tmp_path}/said', 'w').write(sys.argv[1] + os.environ['MAILFERRY_LOGIN'])"
    run((sys.executable, "-c", script, "$HOME; *"), note)
    assert (tmp_path / "said").read_text() == "$HOME; *$(touch /tmp/x); `id`"


def test_every_field_is_bounded_and_one_line() -> None:
    environment = replace(NOTE, reason="x" * 100_000, remedy="a\0b\x9b").environment()
    assert len(environment["MAILFERRY_REASON"]) == MAX_TEXT_CHARACTERS
    assert environment["MAILFERRY_REMEDY"] == "a b "


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/nowhere/tell",), "/nowhere/tell cannot be run: No such file or directory"),
        (("/etc/passwd",), "/etc/passwd cannot be run: Permission denied"),
        (shell("exit 3"), "/bin/sh ended with 3"),
        (shell("kill -9 $$"), "/bin/sh ended with -9"),
    ],
)
def test_a_command_that_fails(command: tuple[str, ...], why: str) -> None:
    with pytest.raises(NotTold, match=f"^{why}$"):
        run(command, NOTE)


def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(NotTold, match="had not ended after 0 s, and was killed"):
        run(shell(f"sleep 1000 & echo $! >{tmp_path}/child; wait"), NOTE, SHORT_S)
    child = Path("/proc", (tmp_path / "child").read_text().strip())
    wait_until("the child is gone", lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2])


# --- a webhook


class Chat(BaseHTTPRequestHandler):
    """Answers as the path says."""

    posted: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Chat.posted.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(body)})
        if self.path == "/hangs":
            never = threading.Event()
            with suppress(OSError):
                while not never.wait(0.05):  # an octet now and then, for ever
                    self.wfile.write(b"H")
            return
        self.send_response({"/moved": 307, "/broken": 500}.get(self.path, 204))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@contextmanager
def chat(certificate: LocalCertificate | None = None) -> Iterator[str]:
    Chat.posted.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    server.daemon_threads = True
    scheme = "http"
    if certificate:
        server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"{scheme}://localhost:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_is_posted_the_note_over_verified_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = local_certificate(tmp_path)
    with chat(certificate) as address:
        with pytest.raises(NotTold, match=r"^the webhook at localhost was not reached: "):
            post(Secret(f"{address}/hook"), NOTE)
        assert Chat.posted == [], "nobody vouches for that certificate"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca_file))
        post(Secret(f"{address}/hook?key=1"), NOTE)
    (posted,) = Chat.posted
    at = posted.pop("at")
    assert datetime.datetime.fromisoformat(at).tzinfo is not None
    assert posted == {
        "path": "/hook?key=1",
        "type": "application/json",
        "event": "sign_in_needed",
        "login": "a@b",
        "app": "work",
        "state": "sign_in_needed",
        "reason": "why [2J so",
        "remedy": "Run: x",
        "fault": "exchange",
        "text": "mailferry: so",
        "mailferry": posted["mailferry"],
    }


@pytest.mark.parametrize(("path", "status"), [("/moved", 307), ("/broken", 500)])
def test_an_answer_that_is_no_yes(path: str, status: int) -> None:
    with chat() as address, pytest.raises(NotTold, match=f"^the webhook at localhost answered {status}$"):
        post(Secret(address + path), NOTE)
    assert len(Chat.posted) == 1, "a redirection is not followed"


def test_a_webhook_that_trickles_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with chat() as address, pytest.raises(NotTold, match="was not reached"):
        post(Secret(f"{address}/hangs"), NOTE, SHORT_S)


def test_the_address_of_a_webhook_is_never_told(tmp_path: Path) -> None:
    with pytest.raises(NotTold) as told:
        post(Secret("http://127.0.0.1:9/a/secret/path"), NOTE)
    assert "secret" not in str(told.value)
    assert str(told.value) == "the webhook at 127.0.0.1 was not reached: Connection refused"


def test_one_that_fails_does_not_keep_the_other(tmp_path: Path) -> None:
    with chat() as address, pytest.raises(NotTold, match=r"^/bin/false ended with 1$"):
        hooks_module.deliver(Notify(("/bin/false",), Secret(f"{address}/hook")), NOTE)
    assert len(Chat.posted) == 1
    assert os.environ.get("MAILFERRY_EVENT") is None
