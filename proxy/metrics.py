"""GROUND: what is counted, timed and looked at, and its telling to Prometheus. The only door to prometheus-client.

What it is: one `Metrics` for each office, with a registry of its own; it is told what happens, once a login and never
once a read, and `exposition` writes it all down. What it is not: a log, or a place for anybody's name; accounts are
counted by state. Who calls it: `network/session.py`, `network/mailboxes.py`, `accounts/tokens.py`, `accounts/store.py`
and the page tell; `app/page/metrics.py` asks. A name that stands here stays: dashboards and alerts are written on it.
"""

from __future__ import annotations

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.login import Fault, LoginRefused, Refusal

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PROTOCOLS = ("imap", "pop3", "smtp")
ACCEPTED, ABANDONED = "accepted", "abandoned"
OUTCOMES = (ACCEPTED, ABANDONED, *(refusal.value for refusal in Refusal))
"""Of a login. Abandoned: the mail program was gone before its end, or the time for it was over."""
Step = Literal["password", "queue", "token", "connect", "upstream_login"]
"""Of a login. Queue: for a place among the account's sessions; connect: until Exchange is reached and TLS is up."""
Refresh = Literal["refreshed", "failed", "refused", "late"]
"""Of a refresh at Microsoft. Failed: for a passing reason; refused: somebody must act; late: nobody needs it now."""
Limit = Literal["wrong_passwords", "at_once", "exchange"]
"""What held logins back: too many wrong passwords, too many at once, or Exchange's own throttling."""
Access = Literal["read", "write"]
Octets = Callable[[], tuple[int, int]]
"""What a session has moved until now: up (to Exchange) and down."""

# From a token that is at hand (a millisecond) to `network.mailboxes.OPENING_LIMIT_S` and a wait in the queue
LOGIN_BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0)

# A second series for each counter, which no rule asks for; the setting is the library's, for all registries
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Now:
    """What is not counted but looked at when somebody asks. Times are seconds since 1970; None: nothing ends."""

    accounts: Mapping[str, int] = field(default_factory=dict)
    """By state (PRODUCT section 4); every state has its number."""
    token_ends_s: float | None = None
    refresh_token_ends_s: float | None = None
    client_secret_ends_s: float | None = None
    store_takes_writes: bool = True


class Metrics:
    """Everything of one office."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections: Callable[[], Mapping[str, int]] = dict
        """Mail programs that are connected, logged in or not, by protocol; the daemon knows."""
        self.logins = self._counter("logins", "Logins by how they ended.", protocol=PROTOCOLS, outcome=OUTCOMES)
        self.login_s = self._histogram("login_seconds", "Time for a login that was accepted.", protocol=PROTOCOLS)
        self.step_s = self._histogram("login_step_seconds", "Time for a login's step.", step=get_args(Step))
        self.refreshes = self._counter("refreshes", "Token refreshes by how they ended.", outcome=get_args(Refresh))
        self.throttles = self._counter("throttles", "Logins held back, by the limit.", by=get_args(Limit))
        self.store_errors = self._counter("store_errors", "Failed accesses to the store.", access=get_args(Access))
        self.turned_away = self._counter("connections_refused", "Connections that may not log in.", protocol=PROTOCOLS)
        self.page_failures = self._counter("page_failures", "Pages that failed by mailferry's own mistake.")
        self.notes = self._counter("notes", "Notes to people, by how they ended.", outcome=("told", "failed"))
        self._relaying: dict[Octets, str] = {}
        """The sessions that are logged in, with their protocols."""
        self._relayed: Tally[tuple[str, str]] = Tally()
        """Octets of the sessions that have ended, by protocol and direction."""
        self._now = Now()
        self.registry.register(_Looked(self._look))
        _Process(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Gauge("mailferry_build_info", "Which mailferry this is.", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)

    # --- told as it happens

    def login_accepted(self, protocol: str, took_s: float) -> None:
        self.logins.labels(protocol, ACCEPTED).inc()
        self.login_s.labels(protocol).observe(took_s)

    def login_abandoned(self, protocol: str) -> None:
        self.logins.labels(protocol, ABANDONED).inc()

    def login_refused(self, protocol: str, refused: LoginRefused) -> None:
        self.logins.labels(protocol, refused.refusal.value).inc()
        if refused.refusal is Refusal.TOO_MANY_ATTEMPTS:
            self.throttled("wrong_passwords")
        elif refused.refusal is Refusal.BUSY:
            self.throttled("exchange" if refused.fault is Fault.EXCHANGE else "at_once")

    def throttled(self, by: Limit) -> None:
        self.throttles.labels(by).inc()

    def connection_refused(self, protocol: str) -> None:
        self.turned_away.labels(protocol).inc()

    def refresh_ended(self, how: Refresh) -> None:
        self.refreshes.labels(how).inc()

    def store_failed(self, access: Access) -> None:
        self.store_errors.labels(access).inc()

    def note_sent(self, *, told: bool) -> None:
        self.notes.labels("told" if told else "failed").inc()

    @contextmanager
    def relaying(self, protocol: str, octets: Octets) -> Iterator[None]:
        """A session that is logged in. It keeps its own count; that is asked for when somebody wants to know."""
        self._relaying[octets] = protocol
        try:
            yield
        finally:
            del self._relaying[octets]
            _add(self._relayed, protocol, octets)

    # --- told to whoever asks

    def exposition(self, now: Now) -> bytes:
        """Everything, as Prometheus reads it (`MEDIA_TYPE`)."""
        self._now = now
        return generate_latest(self.registry)

    def _look(self) -> Iterator[Metric]:
        now = self._now
        yield _gauge("accounts", "Accounts by state.", "state", now.accounts)
        connections = {**dict.fromkeys(PROTOCOLS, 0), **self.connections()}
        yield _gauge("connections", "Mail programs that are connected, logged in or not.", "protocol", connections)
        sessions = Tally(self._relaying.values())
        yield _gauge(
            "sessions", "Sessions that are logged in.", "protocol", {name: sessions[name] for name in PROTOCOLS}
        )
        yield self._octets()
        ends = {
            "token": ("access token", now.token_ends_s),
            "refresh_token": ("sign-in that nobody renews", now.refresh_token_ends_s),
            "client_secret": ("client secret", now.client_secret_ends_s),
        }
        for name, (what, ends_s) in ends.items():
            yield GaugeMetricFamily(
                f"mailferry_{name}_expiry_timestamp_seconds",
                f"When the {what} that ends first ends; nothing where none is known.",
                value=ends_s,
            )
        yield GaugeMetricFamily(
            "mailferry_store_takes_writes",
            "0 while new tokens are in memory only.",
            value=float(now.store_takes_writes),
        )

    def _octets(self) -> Metric:
        octets = self._relayed.copy()
        for moved, protocol in self._relaying.items():
            _add(octets, protocol, moved)
        family = CounterMetricFamily(
            "mailferry_relayed_bytes", "Relayed behind logins; up is to Exchange.", labels=("protocol", "direction")
        )
        for protocol in PROTOCOLS:
            for direction in ("up", "down"):
                family.add_metric((protocol, direction), octets[protocol, direction])
        return family

    def _counter(self, name: str, what: str, **labels: tuple[str, ...]) -> Counter:
        counter = Counter(f"mailferry_{name}", what, tuple(labels), registry=self.registry)
        for values in _combinations(labels):
            counter.labels(*values)  # told from the start: Prometheus sees no rise in a series that begins with 1
        return counter

    def _histogram(self, name: str, what: str, **labels: tuple[str, ...]) -> Histogram:
        histogram = Histogram(f"mailferry_{name}", what, tuple(labels), buckets=LOGIN_BUCKETS_S, registry=self.registry)
        for values in _combinations(labels):
            histogram.labels(*values)
        return histogram


class Stopwatch:
    """Times one login's steps; those that are not finished are not told."""

    def __init__(self, metrics: Metrics, seconds: Callable[[], float]) -> None:
        """`seconds` is a monotonic clock."""
        self._metrics = metrics
        self._seconds = seconds
        self._lap_s = self._began_s = seconds()

    def finished(self, step: Step) -> None:
        """This step, since the last one."""
        now_s = self._seconds()
        self._metrics.step_s.labels(step).observe(now_s - self._lap_s)
        self._lap_s = now_s

    @property
    def whole_s(self) -> float:
        return self._seconds() - self._began_s


class _Looked(Collector):
    """Has the registry look anew whenever somebody asks."""

    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look

    def collect(self) -> Iterable[Metric]:
        return self._look()


class _Process(ProcessCollector):
    """The library's: memory, processor, descriptors. That reads when the machine began from /proc/stat, which our unit
    hides (`ProcSubset=pid`), and would then tell nothing."""

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _combinations(labels: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Every series of a metric with these labels; none where there are no labels, since that is the metric itself."""
    return product(*labels.values()) if labels else iter(())


def _gauge(name: str, what: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"mailferry_{name}", what, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def _add(octets: Tally[tuple[str, str]], protocol: str, moved: Octets) -> None:
    up, down = moved()
    octets[protocol, "up"] += up
    octets[protocol, "down"] += down
