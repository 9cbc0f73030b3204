"""Outages: known after a while, told in place of a greeting, and over as soon as a connection comes about."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from proxy.config.settings import Upstream, UpstreamTls
from proxy.login import Refusal
from proxy.network.outages import KNOWN_AFTER_S, PROBE_EVERY_S, PROBE_LIMIT_S, Outages
from tests.network.turning import TurningReactor

NAME = "mx.example"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def upstream(server: socket.socket) -> Upstream:
    return Upstream(NAME, server.getsockname()[1], UpstreamTls.IMPLICIT, None)


@pytest.fixture
def outages(reactor: TurningReactor) -> Iterator[Outages]:
    outages = Outages(reactor)
    yield outages
    outages.stop()
    reactor.pass_time(PROBE_LIMIT_S)
    assert not reactor.getDelayedCalls()


def text(outages: Outages, upstream: Upstream) -> str | None:
    refused = outages.refusal(upstream)
    assert refused is None or refused.refusal is Refusal.TRY_LATER
    return refused.text if refused else None


def test_a_blip_is_no_outage(reactor: TurningReactor, outages: Outages, upstream: Upstream) -> None:
    outages.failed(upstream, "mx.example:993: no route to host")
    reactor.pass_time(KNOWN_AFTER_S - 0.1)
    assert text(outages, upstream) is None
    outages.reached(upstream)
    reactor.pass_time(KNOWN_AFTER_S)
    assert text(outages, upstream) is None


def test_an_outage_is_told_with_its_newest_reason(
    reactor: TurningReactor, outages: Outages, upstream: Upstream
) -> None:
    outages.failed(upstream, "mx.example:993: no route to host")
    reactor.pass_time(KNOWN_AFTER_S)
    told = text(outages, upstream)
    assert told is not None
    assert told.startswith(f"Not your password: no connection to {NAME}:{upstream.port}: the name has no address.")
    outages.failed(upstream, "mx.example:993: connection refused")
    told = text(outages, upstream)
    assert told is not None
    assert "connection refused" in told


def test_it_is_over_when_a_probe_connects(
    reactor: TurningReactor, outages: Outages, upstream: Upstream, server: socket.socket
) -> None:
    outages.failed(upstream, "no answer")
    reactor.pass_time(KNOWN_AFTER_S)
    assert text(outages, upstream)
    reactor.resolver.addresses[NAME] = ("127.0.0.1",)
    reactor.pass_time(PROBE_EVERY_S)
    assert text(outages, upstream) is None
    asked = len(reactor.resolver.asked)
    reactor.pass_time(3 * PROBE_EVERY_S)
    assert len(reactor.resolver.asked) == asked  # nobody asks any more
    accepted, _ = server.accept()
    with accepted:
        assert accepted.recv(1) == b""  # a probe says nothing


def test_a_probe_that_takes_long_is_followed_by_no_second(
    reactor: TurningReactor, outages: Outages, upstream: Upstream
) -> None:
    reactor.resolver.holds = True
    outages.failed(upstream, "no answer")
    reactor.pass_time(PROBE_EVERY_S + PROBE_LIMIT_S - 0.1)
    assert len(reactor.resolver.asked) == 1
    reactor.pass_time(PROBE_EVERY_S + 0.1)
    assert len(reactor.resolver.asked) == 2


def test_upstreams_are_told_apart(reactor: TurningReactor, outages: Outages, upstream: Upstream) -> None:
    other = Upstream("other.example", 993, UpstreamTls.IMPLICIT, None)
    outages.failed(upstream, "no answer")
    reactor.pass_time(KNOWN_AFTER_S)
    assert text(outages, other) is None
    outages.reached(other)
    assert text(outages, upstream)


def test_stopping_in_the_middle_of_a_probe(reactor: TurningReactor, outages: Outages, upstream: Upstream) -> None:
    reactor.resolver.holds = True
    outages.failed(upstream, "no answer")
    reactor.pass_time(PROBE_EVERY_S)
    outages.stop()
    reactor.pass_time(PROBE_LIMIT_S)
    assert text(outages, upstream) is None
