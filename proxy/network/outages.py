"""Which upstreams cannot be reached just now.

A program that connects during a known outage is told so in place of the greeting: it has offered no password yet, so it
cannot take the trouble for a wrong one (CLIENTS decision 3). What it is not: a cause of refusals during a login; those
find out for themselves. `mailboxes.py` tells of every connection that failed or worked, and asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from proxy.config.settings import Upstream
from proxy.log import Log
from proxy.login import Fault, LoginRefused, Refusal
from proxy.network.dial import DialFailed, dial
from proxy.network.reactor import Reactor

KNOWN_AFTER_S = 10.0  # a blip is shorter, and the logins that it meets wait for its end
PROBE_EVERY_S = 5.0  # a program that was refused comes again within a minute or so and should find it over
PROBE_LIMIT_S = 5.0

log = Log("upstream")


@dataclass(slots=True)
class _Outage:
    began_s: float
    why: str
    probing: Deferred[None]


class Outages:
    """From the first connection that fails, an upstream is tried again until it answers."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._outages: dict[Upstream, _Outage] = {}

    def failed(self, upstream: Upstream, why: str) -> None:
        """No connection came about."""
        if upstream in self._outages:
            self._outages[upstream].why = why
            return
        probing = Deferred.fromCoroutine(self._probe(upstream))
        probing.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._outages[upstream] = _Outage(self._reactor.seconds(), why, probing)
        log.warning("upstream cannot be reached", host=upstream.host, port=upstream.port, reason=why)

    def reached(self, upstream: Upstream) -> None:
        """A connection came about."""
        if upstream in self._outages:
            self._end(upstream).probing.cancel()

    def refusal(self, upstream: Upstream) -> LoginRefused | None:
        """What to say in place of the greeting; None unless the outage lasts for a while already."""
        outage = self._outages.get(upstream)
        if outage is None or self._reactor.seconds() - outage.began_s < KNOWN_AFTER_S:
            return None
        text = f"Not your password: no connection to {outage.why}. Please try again in a minute."
        return LoginRefused(Refusal.TRY_LATER, text, fault=Fault.NETWORK)

    def stop(self) -> None:
        """Probe no more."""
        for outage in self._outages.values():
            outage.probing.cancel()
        self._outages.clear()

    async def _probe(self, upstream: Upstream) -> None:
        """Connect, no more; whoever logs in finds out whether the rest holds."""
        while True:
            await deferLater(self._reactor, PROBE_EVERY_S)
            try:
                sock = await dial(upstream.host, upstream.port, limit_s=PROBE_LIMIT_S, reactor=self._reactor)
            except DialFailed as failed:
                self._outages[upstream].why = str(failed)
            else:
                sock.close()
                self._end(upstream)
                return

    def _end(self, upstream: Upstream) -> _Outage:
        outage = self._outages.pop(upstream)
        lasted_s = self._reactor.seconds() - outage.began_s
        log.info("upstream is reached again", host=upstream.host, port=upstream.port, after_s=round(lasted_s))
        return outage
