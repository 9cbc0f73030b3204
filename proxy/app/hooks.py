"""Notes to people: a command is run, a JSON document posted, when an account begins to need somebody, or is well again.

Level, not edge: whenever a state changes, and now and then, the table of states is compared with what was told, and
the difference is told. So nothing is lost when a note must wait, and what lasts a moment is not told at all. The
telling is done in threads of its own, each note within a bound of time; what goes wrong is logged, and harms nobody.
What it is not: a log of events, or a place for secrets; a note says what `account show` says. Built by `daemon.py`.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import signal
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from proxy import __version__
from proxy.accounts.states import AccountStates, State, secret_warning
from proxy.config.settings import Account, Config, Notify, Secret
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.network.reactor import Reactor as Clock

SETTLE_S = 10.0  # what is over by then needs nobody
LOOK_EVERY_S = 3600.0  # ends come by themselves, without any event
NOTE_EVERY_S = 900.0  # the notes about one account or app are so far apart (pizauth waits as long to tell again)
NOTE_LIMIT_S = 30.0  # for a command to end, for a webhook to answer
MAX_WAITING = 200  # notes that wait for a thread; the rest is told later
MAX_THREADS = 2
MAX_TEXT_CHARACTERS = 500  # of one field
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
)
"""What a command gets of ours: enough to show something on a desktop. Credentials and their places are not among it."""

log = Log("notify")


class Reactor(Clock, IReactorFromThreads):
    """A clock that threads can call back."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is told. Every field is a line of text, empty where there is nothing to say."""

    event: str
    """sign_in_needed, authentication_error, refresh_token_expiring, client_secret_expiring, recovered"""
    login: str
    """The account's; empty where an app is meant."""
    app: str
    state: str
    reason: str
    remedy: str
    fault: str
    text: str
    """All of it in a sentence or two, for a person."""

    def environment(self) -> dict[str, str]:
        """As a command finds it: MAILFERRY_EVENT, MAILFERRY_LOGIN and so on."""
        return {f"MAILFERRY_{name.upper()}": _line(value) for name, value in self._fields()}

    def document(self, now_s: float) -> bytes:
        """As a webhook gets it; chat systems show what is under `text`."""
        at = datetime.datetime.fromtimestamp(int(now_s), datetime.UTC).isoformat().replace("+00:00", "Z")
        fields = {name: _line(value) for name, value in self._fields()}
        return json.dumps({**fields, "at": at, "mailferry": __version__}).encode()

    def _fields(self) -> Iterator[tuple[str, str]]:
        return ((name, getattr(self, name)) for name in self.__dataclass_fields__)


Tell = Callable[[Notify, Note], None]
"""Blocks. Raises: NotTold."""


class NotTold(Exception):
    """A note did not arrive; the text says why, and holds no address of a webhook."""


class Hooks:
    """Begun by `start`, once the daemon is ready, and ended by `stop`."""

    def __init__(
        self,
        config: Config,
        states: AccountStates,
        reactor: Reactor,
        tell: Tell | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._metrics = metrics or Metrics()
        self._states = states
        self._reactor = reactor
        self._tell = tell or deliver
        self._told: dict[tuple[str, str], str] = {}
        """By kind (`state`, `idle`, `secret`) and subject: the event that was told, while it holds."""
        self._told_at_s: dict[tuple[str, str], float] = {}
        self._waiting = 0
        self._next: IDelayedCall | None = None
        self._pool = ThreadPool(0, MAX_THREADS, "notify")
        self._pool.threadFactory = lambda *args, **named: threading.Thread(*args, **named, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        self._pool.start()
        self._states.stirred = self._stirred
        self._look_in(SETTLE_S)

    def use(self, config: Config) -> None:
        """Work with a new configuration from now on."""
        self._config = config
        self._stirred()

    def stop(self) -> None:
        """A note under way is given up with the process."""
        self._states.stirred = lambda: None
        if self._next and self._next.active():
            self._next.cancel()
        self._next = None
        threading.Thread(target=self._pool.stop, daemon=True).start()

    def _stirred(self) -> None:
        if self._next is not None:
            self._look_in(SETTLE_S)

    def _look_in(self, delay_s: float) -> None:
        """At the latest then; what is due earlier stays."""
        if self._next and self._next.active():
            if self._next.getTime() <= self._reactor.seconds() + delay_s:
                return
            self._next.cancel()
        self._next = self._reactor.callLater(delay_s, self._look)

    def _look(self) -> None:
        self._look_in(LOOK_EVERY_S)
        if self._config.notify == Notify():
            return
        for kind, subject, note in self._differences():
            key = (kind, subject)
            free_s = self._told_at_s.get(key, -NOTE_EVERY_S) + NOTE_EVERY_S - self._reactor.seconds()
            if free_s > 0 or self._waiting >= MAX_WAITING:
                self._look_in(max(free_s, SETTLE_S))
                continue
            self._told_at_s[key] = self._reactor.seconds()
            if note.event == "recovered":
                del self._told[key]
            else:
                self._told[key] = note.event
            self._send(note)

    def _differences(self) -> Iterator[tuple[str, str, Note]]:
        """What is to be told, with the kind and the subject that it is about."""
        for account in self._config.accounts:
            if note := self._state_note(account, self._told.get(("state", account.name))):
                yield "state", account.name, note
            if note := self._idle_note(account, self._told.get(("idle", account.name))):
                yield "idle", account.name, note
        now_s = self._states.now_s()
        for app in self._config.apps.values():
            key = ("secret", app.name)
            warning = secret_warning(app, now_s) if app.enabled else ""
            if warning and key not in self._told:
                event = "client_secret_expiring"
                yield *key, Note(event, "", app.name, "", warning, "", "", f"mailferry: {warning}")
            elif not warning:
                self._told.pop(key, None)

    def _state_note(self, account: Account, told: str | None) -> Note | None:
        state = self._states.state(account)
        if state in (State.SIGN_IN_NEEDED, State.AUTHENTICATION_ERROR):
            return self._note(account, state.value) if state.value != told else None
        if state is State.DISABLED:
            self._told.pop(("state", account.name), None)
        signed_in = told == State.SIGN_IN_NEEDED.value and state is State.CONNECTING
        if told and (state is State.CONNECTED or signed_in):
            return self._note(account, "recovered")
        return None

    def _idle_note(self, account: Account, told: str | None) -> Note | None:
        warning = self._states.idle_warning(account) if account.app.enabled else ""
        if warning and self._states.state(account) is not State.SIGN_IN_NEEDED:
            return None if told else self._note(account, "refresh_token_expiring", warning)
        self._told.pop(("idle", account.name), None)
        return None

    def _note(self, account: Account, event: str, reason: str = "") -> Note:
        report = self._states.report(account)
        if event == "recovered":
            text = f"mailferry: {account.name} is well again."
            return Note(event, account.name, account.app.name, report["state"] or "", "", "", "", text)
        reason = reason or report["last_error"] or ""
        remedy = "" if event == "refresh_token_expiring" else report["remedy"] or ""
        what = {
            "sign_in_needed": f"{account.name} needs somebody to sign in at Microsoft.",
            "authentication_error": f"{account.name} is refused, and somebody must act.",
        }.get(event, "")
        text = " ".join(filter(None, ["mailferry:", what, reason, remedy]))
        state, fault = report["state"] or "", report["fault"] or ""
        return Note(event, account.name, account.app.name, state, reason, remedy, fault, text)

    def _send(self, note: Note) -> None:
        log.info("telling", note=note.event, login=note.login or None, app=note.app)
        self._waiting += 1
        notify = self._config.notify
        done = deferToThreadPool(self._reactor, self._pool, self._tell, notify, note)
        done.addCallbacks(lambda _: self._metrics.note_sent(told=True), self._failed, errbackArgs=(note,))
        done.addBoth(self._sent)

    def _failed(self, failure: Failure, note: Note) -> None:
        self._metrics.note_sent(told=False)
        if isinstance(failure.value, NotTold):
            reason = str(failure.value)
            log.warning("nobody was told", note=note.event, login=note.login or None, app=note.app, reason=reason)
        else:
            log.error("nobody was told", note=note.event, login=note.login or None, reason=type(failure.value).__name__)

    def _sent(self, _: object) -> None:
        self._waiting -= 1


def deliver(notify: Notify, note: Note) -> None:
    """Run the command, post to the webhook; one that fails does not keep the other. Raises: NotTold."""
    troubles = []
    for tell in (partial(run, notify.command, note), partial(post, notify.webhook, note)):
        try:
            tell()
        except NotTold as trouble:
            troubles.append(str(trouble))
    if troubles:
        raise NotTold("; ".join(troubles))


def run(command: tuple[str, ...], note: Note, limit_s: float = NOTE_LIMIT_S) -> None:
    """No shell; the note is in the environment. Raises: NotTold: it did not start, failed, or took too long."""
    if not command:
        return
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | note.environment()
    nothing = subprocess.DEVNULL
    try:
        child = subprocess.Popen(  # noqa: S603 - the person's own command, as a list
            command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise NotTold(f"{command[0]} cannot be run: {error.strerror}") from None
    try:
        code = child.wait(limit_s)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it started
        child.wait()
        raise NotTold(f"{command[0]} had not ended after {limit_s:.0f} s, and was killed") from None
    if code:
        raise NotTold(f"{command[0]} ended with {code}")


def post(webhook: Secret | None, note: Note, limit_s: float = NOTE_LIMIT_S) -> None:
    """A redirection is not followed. Raises: NotTold."""
    if webhook is None:
        return
    address = urlsplit(webhook.value)
    host = address.hostname or ""
    if address.scheme == "https":
        context = ssl.create_default_context()
        line: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, address.port, timeout=limit_s, context=context
        )
    else:
        line = http.client.HTTPConnection(host, address.port, timeout=limit_s)
    end = threading.Timer(limit_s, _hang_up, [line])  # its own timeout is for each octet anew
    end.daemon = True
    end.start()
    try:
        path = f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"
        headers = {"Content-Type": "application/json", "User-Agent": f"mailferry/{__version__}"}
        line.request("POST", path, note.document(datetime.datetime.now(datetime.UTC).timestamp()), headers)
        status = line.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise NotTold(f"the webhook at {host} was not reached: {why}") from None
    finally:
        end.cancel()
        line.close()
    if not 200 <= status < 300:
        raise NotTold(f"the webhook at {host} answered {status}")


def _hang_up(line: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        line.sock.shutdown(2)


def _line(text: str) -> str:
    """Without control characters, which would be more than text to a terminal or a mail."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_TEXT_CHARACTERS]
