"""kill -9: of mailferry while it logs in, refreshes, saves and relays; of the servers behind it. Not a test."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

from tests.faults import interrupted
from tests.faults.fleet import Host
from tests.faults.programs import new_mail
from tests.faults.scene import Finding, Scene, scene
from tests.servers.child import wait_until

WITHIN_S = 0.3  # a login with all that belongs to it takes some 30 to 100 ms
STORE_WITHIN_S = 0.004  # a save takes a few milliseconds
MAIL_OCTETS = 3_000_000  # more than all buffers on the way, so that its middle is a middle
TIMEOUT_S = 20.0

Death = tuple[Callable[[], object], Callable[[], object]]
"""How something is killed, and how it comes back."""


def _pause(at_most_s: float) -> None:
    """The moment of a kill is meant to be a random one."""
    threading.Event().wait(random.uniform(0, at_most_s))


def during_logins(host: Host, times: int) -> Finding:
    with scene(host) as one:
        with one.traffic():
            for _ in range(times):
                one.wait_for_a_login()
                _pause(WITHIN_S)
                one.restart()
        return one.judge("mailferry killed (SIGKILL) during logins", times)


def during_refreshes(host: Host, times: int) -> Finding:
    with host.identity.short_lived_tokens(), scene(host) as one:
        with one.traffic():
            for _ in range(times):
                seen = len(host.identity.requests)
                wait_until("a refresh", partial(host.identity.refreshes, seen))
                _pause(WITHIN_S / 10)
                one.restart()
        return one.judge("mailferry killed during token refreshes", times)


def during_store_writes(host: Host, times: int) -> Finding:
    """The kill comes while the journal of the store's database is there, or a moment later."""
    with host.identity.short_lived_tokens(), scene(host) as one:
        with one.traffic():
            for _ in range(times):
                wait_until("the store is written", partial(_writes, one))
                _pause(STORE_WITHIN_S)
                one.restart()
        return one.judge("mailferry killed during writes of its store", times)


def _writes(one: Scene) -> bool:
    """Looks without a pause, since the moment is short."""
    database = one.fleet.state_dir / "tokens.sqlite"
    before = {file: file.stat().st_mtime_ns for file in database.parent.glob("tokens.sqlite*")}
    for _ in range(2_000):
        for file in database.parent.glob("tokens.sqlite*"):
            try:
                changed = file.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            if before.get(file) != changed:
                return True
    return False


def during_relay(host: Host, times: int) -> Finding:
    """`times` often in each direction: in the middle of an APPEND, of a FETCH and of DATA."""
    with scene(host, people=1) as one:
        ferry = one.fleet.kill, one.fleet.serve
        _in_relay(one, times, ferry, ferry)
        return one.judge("mailferry killed in the middle of APPEND, FETCH, DATA", 3 * times)


def upstream_in_relay(host: Host, times: int) -> Finding:
    """Dovecot and Postfix themselves are killed, and come back."""
    with scene(host, people=1) as one:
        dovecot, postfix = host.dovecot, host.postfix
        _in_relay(one, times, (dovecot.kill, dovecot.revive), (postfix.kill, postfix.revive))
        return one.judge("Exchange killed in the middle of APPEND, FETCH, DATA", 3 * times)


def _in_relay(one: Scene, times: int, reading: Death, sending: Death) -> None:
    """Kill in the middle of IMAP's transfers and SMTP's, and revive each time."""
    (person,) = one.people
    for _ in range(times):
        kill, revive = reading
        interrupted.append(one, person, new_mail(MAIL_OCTETS), kill, timeout_s=TIMEOUT_S)
        revive()
        mail = one.lying(person, MAIL_OCTETS)
        interrupted.fetch(one, person, mail, kill, timeout_s=TIMEOUT_S)
        revive()
        kill, revive = sending
        interrupted.data(one, person, new_mail(MAIL_OCTETS), kill, timeout_s=TIMEOUT_S)
        revive()
