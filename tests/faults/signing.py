"""The sign-in service fails, or is asked by everybody at once. Not a test."""

from __future__ import annotations

import threading
from contextlib import suppress

from proxy.demo.identity import EVERYWHERE, Failure
from tests.faults.fleet import TOKEN_LIFE_S, Host
from tests.faults.programs import Mail, Refused, fetched, leave_imap
from tests.faults.scene import Finding, Scene, scene
from tests.servers.mailhost import Person

DOWN_S = 1.5
KINDS = (Failure.DISCONNECTS, Failure.UNAVAILABLE, Failure.HTML_PAGE, Failure.THROTTLED, Failure.HANGS)
LOGINS_EACH = 10
STORM_S = 300.0


def down(host: Host, times: int) -> Finding:
    """Each login needs a refresh, and meets one kind of failure after the other; logins wait for its end.

    Who has a token that lasts is not concerned at all. The hour of it is played with a fake clock: `test_hours.py`.
    """
    with host.identity.short_lived_tokens(), scene(host) as one:
        for number in range(times):
            kind = KINDS[number % len(KINDS)]
            host.identity.fail(kind, at=EVERYWHERE)
            healing = threading.Timer(DOWN_S, host.identity.heal)
            healing.start()
            _log_in_while_down(one)
            healing.join()
        return one.judge("sign-in service down, and back", times, "closes, 503, a web page, 429, silence")


def _log_in_while_down(one: Scene) -> None:
    """Refused for now is right, and blaming the password is not; `judge` tells."""
    threads = [
        threading.Thread(target=_try, args=(one, person), daemon=True) for person in one.people for _ in range(2)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(STORM_S)


def _try(one: Scene, person: Person) -> None:
    with suppress(Refused):
        leave_imap(one.programs.imap(person))


def storm(host: Host, accounts: int) -> Finding:
    """Ten logins for each account at once, and each needs a refresh: one refresh for an account, no more.

    Refresh tokens are good for one use: a second refresh with the same would lose the grant. All passwords were right
    once before: of logins that were not, `throttle.py` lets 400 of one address wait, and we have but one.
    """
    host.identity.be_strict(True)
    try:
        with host.identity.short_lived_tokens(), scene(host, people=accounts) as one:
            mails = {person.upn: one.lying(person, 2_000) for person in one.people}
            for person in one.people:
                leave_imap(one.programs.imap(person))
            before = one.programs.logins
            host.identity.issue_for(TOKEN_LIFE_S)
            _wait_out()
            refreshes, logins = _everybody(one, mails), accounts * LOGINS_EACH
            one.expect(refreshes == accounts, f"{refreshes} refreshes for {accounts} accounts")
            came = one.programs.logins - before
            one.expect(came == logins, f"{came} of {logins} logins came through")
            return one.judge(
                f"{logins:,} logins at once over {accounts} accounts, all in need of a refresh",
                logins,
                f"{refreshes} refreshes; each refresh token was good for one use",
            )
    finally:
        host.identity.be_strict(False)


def _wait_out() -> None:
    """The tokens that are there live for a second."""
    threading.Event().wait(1.1)


def _everybody(one: Scene, mails: dict[str, Mail]) -> int:
    """All log in at once and fetch their message. How many refreshes it took."""
    seen = len(one.host.identity.requests)
    threads = [
        threading.Thread(target=_fetch, args=(one, person, mails[person.upn]), daemon=True)
        for person in one.people
        for _ in range(LOGINS_EACH)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(STORM_S)
    return one.host.identity.refreshes(seen)


def _fetch(one: Scene, person: Person, mail: Mail) -> None:
    try:
        client = one.programs.imap(person, timeout_s=STORM_S)
        one.expect(fetched(client, mail), "a message came otherwise than it lies")
        leave_imap(client)
    except Exception as error:
        one.wrong.append(f"a login of the storm failed: {error}")


def rotation(host: Host, rounds: int) -> Finding:
    """Strictly rotated refresh tokens, round after round, with a clean restart at times: none is used twice."""
    host.identity.be_strict(True)
    try:
        with host.identity.short_lived_tokens(), scene(host) as one:
            seen = len(host.identity.requests)
            for number in range(rounds):
                _wait_out()
                _log_in_while_down(one)
                if number % 5 == 4:
                    one.fleet.stop()
                    one.fleet.serve()
            return one.judge("refresh tokens good for one use only", host.identity.refreshes(seen))
    finally:
        host.identity.be_strict(False)
