"""The examination: all checks in their order, one after the other, each bounded in time, findings as they come.

Outer things stand first, so that the first failure is mostly the cause of those behind it. Each check runs in a thread
of its own, which is left behind when its time is over. Who calls it: `probing.py`, and `page/doctoring.py` in a thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from proxy.accounts.keys import KeyUnusable
from proxy.accounts.store import StoreError
from proxy.app.answers import DeskError
from proxy.app.doctor.configuration import check_configuration, check_files
from proxy.app.doctor.findings import Finding, Verdict, fail
from proxy.app.doctor.grant import SIGN_IN, UNDER_WAY, check_grant
from proxy.app.doctor.machine import check_clock, check_daemon, check_descriptors, check_variables
from proxy.app.doctor.mailbox import check_mailbox
from proxy.app.doctor.names import check_names
from proxy.app.doctor.ports import check_ports
from proxy.app.doctor.registration import check_app
from proxy.app.doctor.scene import Scene
from proxy.app.doctor.store import STORE, check_store
from proxy.app.doctor.transport import check_place
from proxy.config import Account
from proxy.log import Log
from proxy.login import Fault

CHECK_LIMIT_S = 60.0  # the longest inner wait is 45 s, for a token (rehearsal.py)
ACCOUNT_LIMIT_S = 100.0  # between two findings: a token twice, or a login
_MEND = "Mend what it says; the daemon's log may have more."

log = Log("doctor")


@dataclass(frozen=True, slots=True)
class Looking:
    """Progress: what is looked at now."""

    what: str
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    look: Callable[[], Iterator[Finding]]
    limit_s: float = CHECK_LIMIT_S


def checks(scene: Scene) -> list[Check]:
    """All that apply to this scene, in their order."""
    made = [
        Check("the configuration", partial(check_configuration, scene)),
        Check("files and their modes", partial(check_files, scene)),
        Check("the daemon", partial(check_daemon, scene)),
        Check("ports", partial(check_ports, scene)),
        Check("descriptors", partial(check_descriptors, scene)),
        Check("proxy variables", partial(check_variables, scene)),
        Check("names", partial(check_names, scene)),
        *(Check(f"the way to {place.name}", partial(check_place, scene, place)) for place in scene.places),
        Check("the clock", partial(check_clock, scene)),
        *(Check(f"the app {app.name}", partial(check_app, scene, app)) for app in scene.apps),
    ]
    if scene.broken and not scene.running:
        return made  # no office of our own could be opened with that configuration
    made.append(Check("stored sign-ins", partial(check_store, scene)))
    made += [
        Check(f"{account.name} at Microsoft", partial(_check_account, scene, account), ACCOUNT_LIMIT_S)
        for account in scene.accounts
    ]
    return made


def examine(scene: Scene) -> Iterator[Looking | Finding]:
    """Look at everything; what is being looked at is told before what was found."""
    due = checks(scene)
    for number, check in enumerate(due, 1):
        yield Looking(check.what, number, len(due))
        yield from perform(check)


def perform(check: Check) -> Iterator[Finding]:
    """The findings of one check, as they come; one that says so when its time is over, or it failed itself."""
    found: queue.SimpleQueue[Finding | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            for finding in check.look():
                found.put(finding)
        except BaseException as error:
            found.put(error)
        else:
            found.put(None)

    threading.Thread(target=work, name=f"doctor: {check.what}", daemon=True).start()
    while True:
        try:
            got = found.get(timeout=check.limit_s)
        except queue.Empty:
            yield _unfinished(check)
            return
        match got:
            case None:
                return
            case Finding():
                yield got
            case error:
                yield _failed(check, error)
                return


def _check_account(scene: Scene, account: Account) -> Iterator[Finding]:
    """Its sign-in, and with a token in hand its logins; nothing where what stands in the way is told already."""
    if not account.app.enabled:
        return
    refused = False
    for finding in check_grant(scene, account):
        refused = refused or (finding.check == SIGN_IN and finding.verdict is Verdict.FAIL)
        refused = refused or finding.remedy == UNDER_WAY
        yield finding
    if not refused:
        yield from check_mailbox(scene, account)


def _unfinished(check: Check) -> Finding:
    return fail(
        "time",
        f"Looking at {check.what}",
        f"It did not end within {check.limit_s:g} seconds.",
        Fault.NETWORK,
        "Something does not answer: see what was found before; then run this again.",
    )


def _failed(check: Check, error: BaseException) -> Finding:
    title = f"Looking at {check.what}"
    match error:
        case StoreError() | KeyUnusable() | DeskError():
            cause, _, command = error.text.partition(" Run: ")
            return fail(STORE, title, cause, Fault.MAILFERRY, f"Run: {command}" if command else _MEND)
        case _:
            log.failure("check failed", error, check=check.what)
            return fail(
                "mistake",
                title,
                f"The doctor made a mistake ({type(error).__name__}).",
                Fault.MAILFERRY,
                "Please report it, with the output of `mailferry doctor --bundle FILE`.",
            )
