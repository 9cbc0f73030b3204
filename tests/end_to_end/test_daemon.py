"""The daemon as a process: it stops cleanly, survives being killed, and is alone on its state folder."""

from __future__ import annotations

import imaplib
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.ferry import Ferry
from tests.end_to_end.refused import TIMEOUT_S
from tests.servers.child import wait_until
from tests.servers.mailhost import MailHost, Person

KILLS = 10
KILL_WITHIN_S = 0.4  # of the first login: a refresh takes some tens of milliseconds, so kills fall before, in and after


def test_sigterm_stops_cleanly(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    new_ferry.serve()
    idle = imaplib.IMAP4("localhost", new_ferry.ports["imap"], timeout=TIMEOUT_S)
    idle.login(person.upn, new_ferry.passwords[person.upn])
    assert new_ferry.stop() == 0
    assert idle.readline().startswith(b"* BYE mailferry is stopping")
    assert idle.readline() == b"", "the mail program's connection is closed"
    idle.shutdown()
    assert "Traceback" not in new_ferry.log


def test_sigterm_without_any_account_stops_cleanly(new_ferry: Ferry) -> None:
    new_ferry.serve()
    assert new_ferry.stop() == 0


def test_a_second_daemon_on_the_same_state_folder_leaves_with_5(ferry: Ferry) -> None:
    told = ferry.run("serve", exit_code=5)
    assert str(ferry.state_dir) in told.errors
    person = ferry.ready_account()
    assert ferry.logs_in(person), "the first one goes on"


def test_a_configuration_error_leaves_with_2(new_ferry: Ferry) -> None:
    new_ferry.config.write_text(f"{new_ferry.config.read_text()}no_such_key: 1\n")
    assert "no_such_key" in new_ferry.run("serve", exit_code=2).errors


def test_sighup_takes_a_changed_configuration(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    new_ferry.serve()
    assert new_ferry.logs_in(person)
    account = next((new_ferry.folder / "conf.d").glob("account-*.yaml"))
    other_login = f"other.{person.upn}"
    account.write_text(account.read_text().replace(person.upn, other_login, 1))
    assert new_ferry.daemon is not None
    os.kill(new_ferry.daemon.process.pid, signal.SIGHUP)
    wait_until("the old login is gone", lambda: not new_ferry.logs_in(person))


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Ferry]:
    """A ferry whose tokens end at once, so that each login refreshes."""
    with MailHost(access_token_lifetime_s=1) as host, closing(Ferry(tmp_path, host)) as ferry:
        ferry.app_add()
        yield ferry


def _try_to_log_in(ferry: Ferry, person: Person) -> None:
    with suppress(OSError, imaplib.IMAP4.error):
        ferry.logs_in(person)


@pytest.mark.timeout(300)
def test_a_daemon_killed_during_refreshes_loses_no_account_and_no_grant(short_lived: Ferry) -> None:
    people = [short_lived.ready_account() for _ in range(3)]
    refreshes = 0
    for _ in range(KILLS):
        seen = len(short_lived.host.identity.requests)
        short_lived.serve()
        programs = [threading.Thread(target=_try_to_log_in, args=(short_lived, person)) for person in people]
        for each in programs:
            each.start()
        wait_until("a refresh is under way", partial(_refreshes, short_lived.host, seen))
        threading.Event().wait(random.uniform(0, KILL_WITHIN_S))  # the moment of the kill is meant to be a random one
        short_lived.kill()
        for each in programs:
            each.join(TIMEOUT_S)
        refreshes += _refreshes(short_lived.host, seen)
    assert refreshes >= KILLS
    short_lived.serve()
    for person in people:
        assert short_lived.state(person) != "sign_in_needed"
        wait_until(f"{person.upn} logs in without a new sign-in", partial(short_lived.logs_in, person))
        assert short_lived.state(person) == "connected"


def _refreshes(host: MailHost, since: int) -> int:
    return sum(grant == "refresh_token" for _, grant in host.identity.requests[since:])
