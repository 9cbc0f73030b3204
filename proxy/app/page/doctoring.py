"""The doctor on the page: a button starts it, a thread of its own does the work, the page shows what it has found.

What it is not: the checks (`proxy/app/doctor`). Its thread asks this daemon through the control socket, as a command
would, so that nothing it waits for holds up the reactor. One examination at a time for each login, few at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from proxy.app.answers import no_account
from proxy.app.doctor.examination import Looking, examine
from proxy.app.doctor.findings import ACTORS, FAULTS, Finding, Verdict, summary, worst
from proxy.app.doctor.scene import daemon_only, survey
from proxy.app.page.wire import Answer, Asked, Page, Problem, Redirect, Route, path_to
from proxy.log import Log

if TYPE_CHECKING:
    from proxy.app.desk import Desk

REFRESH_S = 2  # while it works
MAX_RUNNING = 2  # examinations at once; each holds a thread for up to some minutes
MAX_KEPT = 32  # of those that ended
EVERYTHING = ""  # in a login's place

log = Log("doctor")


@dataclass(slots=True)
class Examination:
    """One that runs, or has run. Its thread adds to it, and the page reads."""

    login: str
    began_s: float
    findings: list[Finding] = field(default_factory=list)
    looking: Looking | None = None
    done: bool = False


class Examinations:
    """All of one daemon, the newest of each login."""

    def __init__(self) -> None:
        self._of: dict[str, Examination] = {}

    def of(self, login: str) -> Examination | None:
        return self._of.get(login)

    def start(self, login: str, file: Path | None, environ: Mapping[str, str]) -> bool:
        """Begin one, unless one of this login runs, or too many do: then False."""
        running = [each for each in self._of.values() if not each.done]
        if any(each.login == login for each in running):
            return True
        if len(running) >= MAX_RUNNING:
            return False
        ended = [key for key, each in self._of.items() if each.done]
        for key in ended[: max(0, len(self._of) - MAX_KEPT + 1)]:
            del self._of[key]
        self._of.pop(login, None)  # it becomes the youngest
        made = self._of[login] = Examination(login, time.time())
        threading.Thread(target=_work, args=(made, file, environ), name="doctor", daemon=True).start()
        return True


_EXAMINATIONS: WeakKeyDictionary[Desk, Examinations] = WeakKeyDictionary()
"""By the desk, which is the daemon's own."""


def _work(examination: Examination, file: Path | None, environ: Mapping[str, str]) -> None:
    try:
        for step in examine(survey(file, environ, examination.login or None, daemon_only)):
            if isinstance(step, Finding):
                examination.findings.append(step)
            else:
                examination.looking = step
    except Exception as error:
        log.failure("examination failed", error)
    finally:
        examination.done = True


async def show_all(asked: Asked) -> Answer:
    return _page(asked, EVERYTHING)


async def show(asked: Asked) -> Answer:
    account = asked.service.config().account(asked.path["login"])
    if account is None:
        return _no_account(asked)
    return _page(asked, account.name)


async def start_all(asked: Asked) -> Answer:
    return _start(asked, EVERYTHING, "/doctor")


async def start(asked: Asked) -> Answer:
    account = asked.service.config().account(asked.path["login"])
    if account is None:
        return _no_account(asked)
    return _start(asked, account.name, path_to("/doctor/{login}", login=account.name))


def _start(asked: Asked, login: str, back: str) -> Answer:
    if not _examinations(asked).start(login, asked.service.config().file, dict(os.environ)):
        return Problem(
            429, "The doctor is busy", "Two examinations are under way.", "Wait until one of them has ended."
        )
    return Redirect(back)


def _page(asked: Asked, login: str) -> Page:
    examination = _examinations(asked).of(login)
    running = examination is not None and not examination.done
    findings = list(examination.findings) if examination else []
    accounts = [account.name for account in asked.service.config().accounts]
    return Page(
        "doctor.html",
        refresh_s=REFRESH_S if running else 0,
        login=login,
        accounts=accounts,
        examination=examination,
        running=running,
        findings=[_shown(finding) for finding in _in_order(findings, running=running)],
        last_word=summary(findings) if findings and not running else "",
        verdict=worst(findings).value if findings and not running else "",
    )


def _in_order(findings: list[Finding], *, running: bool) -> list[Finding]:
    """As they came; at the end what is bad stands first."""
    if running:
        return findings
    rank = {Verdict.FAIL: 0, Verdict.WARN: 1, Verdict.OK: 2}
    return sorted(findings, key=lambda finding: rank[finding.verdict])


def _shown(finding: Finding) -> dict[str, Any]:
    return {
        "verdict": finding.verdict.value,
        "title": finding.title,
        "cause": finding.cause,
        "fault": FAULTS[finding.fault] if finding.fault else "",
        "who": ACTORS[finding.who] if finding.who else "",
        "remedy": finding.remedy,
        "details": finding.details,
    }


def _examinations(asked: Asked) -> Examinations:
    return _EXAMINATIONS.setdefault(asked.service.desk, Examinations())


def _no_account(asked: Asked) -> Problem:
    return Problem(404, "No such account", no_account(asked.path["login"]))


ROUTES = (
    Route("GET", "/doctor", show_all, here="doctor"),
    Route("POST", "/doctor", start_all, here="doctor"),
    Route("GET", "/doctor/{login}", show, here="doctor"),
    Route("POST", "/doctor/{login}", start, here="doctor"),
)
