"""What is counted, timed and looked at, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.internet.task import Clock

from proxy import __version__
from proxy.login import Fault, LoginRefused, Refusal
from proxy.metrics import LOGIN_BUCKETS_S, MEDIA_TYPE, PROTOCOLS, Metrics, Now, Stopwatch, _Process


def told(metrics: Metrics, now: Now | None = None) -> dict[str, float]:
    """Every sample, by name and labels in the order of the alphabet."""
    lines = metrics.exposition(now or Now()).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def refused(refusal: Refusal, fault: Fault = Fault.MAILFERRY) -> LoginRefused:
    return LoginRefused(refusal, "No.", fault=fault)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_every_outcome_is_told_from_the_start(metrics: Metrics) -> None:
    samples = told(metrics)
    for protocol in PROTOCOLS:
        for outcome in ("accepted", "abandoned", *(refusal.value for refusal in Refusal)):
            assert samples[f'mailferry_logins_total{{outcome="{outcome}",protocol="{protocol}"}}'] == 0


def test_logins_by_outcome(metrics: Metrics) -> None:
    metrics.login_accepted("imap", 0.3)
    metrics.login_accepted("imap", 70.0)
    metrics.login_abandoned("pop3")
    for refusal in Refusal:
        metrics.login_refused("smtp", refused(refusal))
    samples = told(metrics)
    assert samples['mailferry_logins_total{outcome="accepted",protocol="imap"}'] == 2
    assert samples['mailferry_logins_total{outcome="abandoned",protocol="pop3"}'] == 1
    assert [samples[f'mailferry_logins_total{{outcome="{each.value}",protocol="smtp"}}'] for each in Refusal] == [
        1.0
    ] * len(Refusal)
    assert samples['mailferry_login_seconds_bucket{le="0.25",protocol="imap"}'] == 0
    assert samples['mailferry_login_seconds_bucket{le="0.5",protocol="imap"}'] == 1
    assert samples[f'mailferry_login_seconds_bucket{{le="{LOGIN_BUCKETS_S[-1]}",protocol="imap"}}'] == 1
    assert samples['mailferry_login_seconds_count{protocol="imap"}'] == 2
    assert samples['mailferry_login_seconds_count{protocol="smtp"}'] == 0


@pytest.mark.parametrize(
    ("no", "by"),
    [
        (refused(Refusal.TOO_MANY_ATTEMPTS), "wrong_passwords"),
        (refused(Refusal.BUSY, Fault.CLIENT), "at_once"),
        (refused(Refusal.BUSY, Fault.EXCHANGE), "exchange"),
        (refused(Refusal.TRY_LATER, Fault.EXCHANGE), None),
    ],
)
def test_what_holds_logins_back(metrics: Metrics, no: LoginRefused, by: str | None) -> None:
    metrics.login_refused("imap", no)
    samples = told(metrics)
    limits = ("wrong_passwords", "at_once", "exchange")
    assert [limit for limit in limits if samples[f'mailferry_throttles_total{{by="{limit}"}}']] == ([by] if by else [])


def test_the_rest_is_counted(metrics: Metrics) -> None:
    metrics.refresh_ended("refused")
    metrics.store_failed("write")
    metrics.throttled("exchange")
    metrics.connection_refused("imap")
    metrics.note_sent(told=False)
    metrics.page_failures.inc()
    samples = told(metrics)
    assert samples['mailferry_refreshes_total{outcome="refused"}'] == 1
    assert samples['mailferry_refreshes_total{outcome="refreshed"}'] == 0
    assert samples['mailferry_store_errors_total{access="write"}'] == 1
    assert samples['mailferry_throttles_total{by="exchange"}'] == 1
    assert samples['mailferry_connections_refused_total{protocol="imap"}'] == 1
    assert samples['mailferry_notes_total{outcome="failed"}'] == 1
    assert samples["mailferry_page_failures_total"] == 1


def test_a_session_is_counted_while_it_runs_and_its_octets_for_ever(metrics: Metrics) -> None:
    moved = [(100, 2_000)]
    up, down = (f'mailferry_relayed_bytes_total{{direction="{way}",protocol="imap"}}' for way in ("up", "down"))
    sessions = 'mailferry_sessions{protocol="imap"}'
    with metrics.relaying("imap", lambda: moved[-1]), metrics.relaying("imap", lambda: (1, 1)):
        samples = told(metrics)
        assert (samples[sessions], samples[up], samples[down]) == (2, 101, 2_001)
        moved.append((150, 3_000))
        assert told(metrics)[down] == 3_001
    samples = told(metrics)
    assert (samples[sessions], samples[up], samples[down]) == (0, 151, 3_001)
    assert samples['mailferry_relayed_bytes_total{direction="up",protocol="smtp"}'] == 0


def test_a_session_that_fails_is_over(metrics: Metrics) -> None:
    with pytest.raises(OSError, match="gone"), metrics.relaying("smtp", lambda: (5, 0)):
        raise OSError("gone")
    assert told(metrics)['mailferry_sessions{protocol="smtp"}'] == 0
    assert told(metrics)['mailferry_relayed_bytes_total{direction="up",protocol="smtp"}'] == 5


def test_what_is_looked_at(metrics: Metrics) -> None:
    metrics.connections = lambda: {"imap": 3}
    samples = told(metrics, Now({"connected": 4, "disabled": 0}, 10.0, 20.0, 30.0, store_takes_writes=False))
    assert samples['mailferry_accounts{state="connected"}'] == 4
    assert samples['mailferry_accounts{state="disabled"}'] == 0
    assert samples['mailferry_connections{protocol="imap"}'] == 3
    assert samples['mailferry_connections{protocol="pop3"}'] == 0
    assert samples["mailferry_token_expiry_timestamp_seconds"] == 10
    assert samples["mailferry_refresh_token_expiry_timestamp_seconds"] == 20
    assert samples["mailferry_client_secret_expiry_timestamp_seconds"] == 30
    assert samples["mailferry_store_takes_writes"] == 0


def test_what_never_ends_is_not_told(metrics: Metrics) -> None:
    samples = told(metrics, Now())
    assert [name for name in samples if "expiry" in name] == []
    assert samples["mailferry_store_takes_writes"] == 1


def test_steps_are_timed_one_after_the_other(metrics: Metrics) -> None:
    clock = Clock()
    clock.advance(1_000)
    watch = Stopwatch(metrics, clock.seconds)
    clock.advance(0.5)
    watch.finished("password")
    clock.advance(2)
    watch.finished("token")
    samples = told(metrics)
    assert samples['mailferry_login_step_seconds_sum{step="password"}'] == 0.5
    assert samples['mailferry_login_step_seconds_sum{step="token"}'] == 2
    assert samples['mailferry_login_step_seconds_count{step="connect"}'] == 0
    assert watch.whole_s == 2.5


def test_each_has_a_registry_of_its_own(metrics: Metrics) -> None:
    metrics.login_accepted("imap", 1)
    assert told(Metrics())['mailferry_logins_total{outcome="accepted",protocol="imap"}'] == 0


def test_the_process_is_told_where_the_unit_hides_the_machine(tmp_path: Path) -> None:
    """`ProcSubset=pid`: there is no /proc/stat."""
    (tmp_path / "self").symlink_to("/proc/self")
    hidden, whole = CollectorRegistry(), CollectorRegistry()
    _Process(proc=str(tmp_path), registry=hidden)
    ProcessCollector(registry=whole)
    names = {family.name for family in whole.collect()}
    assert {"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"} <= names
    assert {family.name for family in hidden.collect()} == names
    began_s, expected_s = (each.get_sample_value("process_start_time_seconds") for each in (hidden, whole))
    assert began_s == pytest.approx(expected_s, abs=2.0), "the kernel's own is rounded"


def test_names_and_kinds(metrics: Metrics) -> None:
    text = metrics.exposition(Now()).decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert {name.partition("_")[0] for name in names} == {"mailferry", "process", "python"}
    assert not [name for name in names if name.endswith("_created")]
    assert "# TYPE mailferry_logins_total counter" in text
    assert "# TYPE mailferry_sessions gauge" in text
    assert "# TYPE mailferry_login_seconds histogram" in text
    assert f'version="{__version__}"' in text
    assert MEDIA_TYPE.startswith("text/plain; version=0.0.4")
