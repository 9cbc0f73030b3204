"""Stand-ins for what surrounds tokens and sign-ins: Microsoft, the store, the clock, and accounts to try them with."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from proxy.accounts.outcomes import (
    CodeFlow,
    DeviceFlow,
    Granted,
    NotGranted,
    Outcome,
    SignInAgain,
    SignInError,
    StillPending,
    TryLater,
)
from proxy.accounts.store import JSON, Record, StoreUnavailable, Superseded
from proxy.config.settings import Account, App, Cloud, Flow, Secret

NOW_S = 1_800_000_000.0
HOUR_S = 3600.0
PATIENCE_S = 30
TENANT_ID = "7d2f0c1e-3b64-4f5a-9c8e-51a0d3e6b742"

T = TypeVar("T")

APP = App(
    name="work",
    application_id="11111111-1111-4111-8111-111111111111",
    account_types="organizations",
    authority="https://login.microsoftonline.com/organizations",
    own_authority=False,
    client_secret=None,
    certificate=None,
    flow=Flow.DELEGATED,
    cloud=Cloud.GLOBAL,
    redirect_uri="http://localhost",
    enabled=True,
    ca_file=None,
)
DAEMON = replace(APP, name="daemon", flow=Flow.APP_ONLY, client_secret=Secret("s3cret"))


def account(login: str = "alice@contoso.com", *, app: App = APP, mailbox: str = "", sign_in: str = "") -> Account:
    return Account(
        logins=(login,),
        app=app,
        passwords=(),
        mailbox=mailbox or login,
        sign_in=sign_in or mailbox or login,
        protocols=("imap", "pop3", "smtp"),
        imap_connections=16,
        smtp_connections=3,
        messages_per_minute=30,
    )


ALICE = account()


def granted(number: int, *, at_s: float = NOW_S, life_s: float = HOUR_S, username: str = ALICE.name) -> Granted:
    """The tokens of the `number`th answer, all of them recognisable."""
    name = username.partition("@")[0]
    return Granted(f"access-{number}", at_s + life_s, f"cache-{number}", username, f"{name}-id.{TENANT_ID}")


def again(code: int = 700082) -> SignInAgain:
    return SignInAgain(SignInError("invalid_grant", (code,), f"AADSTS{code}: no", correlation_id="c-1"))


def later(retry_after_s: float | None = None) -> TryLater:
    return TryLater(SignInError("network_error", text="The sign-in service cannot be reached."), retry_after_s)


def running(work: Coroutine[Deferred[object], object, T]) -> Deferred[T]:
    return Deferred.fromCoroutine(work)


def result(deferred: Deferred[T]) -> T:
    """What it came to; it must have come to something."""
    got: list[T | Failure] = []
    deferred.addBoth(got.append)
    assert got, "nothing yet"
    if isinstance(got[0], Failure):
        got[0].raiseException()
    return got[0]


def done(work: Coroutine[Deferred[object], object, T]) -> T:
    return result(running(work))


class Inbox:
    """A reactor's thread-safe half: results of threads are taken in the test's own thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, call: Callable[..., object], *arguments: object) -> None:
        self._calls.put(lambda: call(*arguments))

    def wait(self, deferred: Deferred[T]) -> T:
        got: list[T | Failure] = []
        deferred.addBoth(got.append)
        while not got:
            self._calls.get(timeout=PATIENCE_S)()
        if isinstance(got[0], Failure):
            got[0].raiseException()
        return got[0]


class WallClock(Clock):
    """Twisted's clock, started at a plausible time of day."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = NOW_S


class FakeMicrosoft:
    """Every call is kept and waits for its answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """Kind of call, and the cache or code it came with."""
        self.waiting: list[Deferred[Outcome]] = []
        self.code_flows: list[CodeFlow | NotGranted] = []
        self.device_flows: list[DeviceFlow | NotGranted] = []
        self.polls: list[Deferred[Outcome | StillPending]] = []

    def refresh(self, app: App, cache: str) -> Deferred[Outcome]:
        return self._ask("refresh", cache)

    def client_token(self, app: App) -> Deferred[Outcome]:
        return self._ask("client_token", app.name)

    def begin_code(self, app: App, redirect_uri: str, login_hint: str) -> Deferred[CodeFlow | NotGranted]:
        self.asked.append(("begin_code", f"{redirect_uri} {login_hint}"))
        if self.code_flows:
            return succeed(self.code_flows.pop(0))
        state = f"state-{len(self.asked)}"
        return succeed(CodeFlow(state, f"https://sign-in.test/?state={state}", {"nonce": f"nonce-{state}"}))

    def redeem_code(self, app: App, flow: CodeFlow, query: Mapping[str, str]) -> Deferred[Outcome]:
        return self._ask("redeem_code", f"{flow.state} {query.get('code', '')}")

    def redeem_refresh_token(self, app: App, refresh_token: str) -> Deferred[Outcome]:
        return self._ask("redeem_refresh_token", refresh_token)

    def begin_device(self, app: App) -> Deferred[DeviceFlow | NotGranted]:
        self.asked.append(("begin_device", app.name))
        return succeed(self.device_flows.pop(0))

    def poll_device(self, app: App, flow: DeviceFlow) -> Deferred[Outcome | StillPending]:
        self.asked.append(("poll_device", flow.user_code))
        self.polls.append(Deferred())
        return self.polls[-1]

    def _ask(self, kind: str, what: str) -> Deferred[Outcome]:
        self.asked.append((kind, what))
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def answer(self, outcome: Outcome) -> None:
        """To the call that waits longest."""
        self.waiting.pop(0).callback(outcome)

    def count(self, kind: str = "refresh") -> int:
        return sum(asked == kind for asked, _ in self.asked)


class MemoryStore:
    """Compare-and-swap in a dictionary; it can fail, and it can hold its saves back until `let_go`."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, str]] = {}
        self.failing = False
        self.holding = False
        self.saves = 0
        self._held: list[tuple[Deferred[int], str, str, int]] = []

    def load(self, name: str) -> Deferred[Record | None]:
        if self.failing:
            return fail(StoreUnavailable("The disk is full."))
        version, text = self.records.get(name, (0, "null"))
        data = cast("dict[str, JSON] | None", json.loads(text))
        return succeed(None if data is None else Record(version, data))

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> Deferred[int]:
        self.saves += 1
        saved: Deferred[int] = Deferred()
        self._held.append((saved, name, json.dumps(data, allow_nan=False), expected_version))
        if not self.holding:
            self.let_go()
        return saved

    def delete(self, name: str, expected_version: int) -> Deferred[None]:
        if self.failing:
            return fail(StoreUnavailable("The disk is full."))
        if self.records.get(name, (0, ""))[0] != expected_version or not expected_version:
            return fail(Superseded())
        del self.records[name]
        return succeed(None)

    def names(self) -> Deferred[tuple[str, ...]]:
        return succeed(tuple(sorted(self.records)))

    def let_go(self) -> None:
        """Do the saves that wait, as the store is now."""
        held, self._held = self._held, []
        for saved, name, text, expected_version in held:
            version = self.records.get(name, (0, ""))[0]
            if self.failing:
                saved.errback(StoreUnavailable("The disk is full."))
            elif version != expected_version:
                saved.errback(Superseded())
            else:
                self.records[name] = (version + 1, text)
                saved.callback(version + 1)

    def holds(self, name: str, text: str) -> bool:
        """Whether this record is there and has the text in it."""
        return text in self.records.get(name, (0, ""))[1]
