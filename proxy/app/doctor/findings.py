"""What a check found, as data, and how it is told: verdict, cause, whose fault, remedy, who must act.

What it is not: a check. No finding holds a secret; `redaction.py` removes names too, where a report is handed on.
"""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.explanations import Explanation, Who
from proxy.login import Fault

LINE_CHARACTERS = 100  # a terminal's line, with some room


class Verdict(enum.Enum):
    OK = "ok"
    WARN = "warn"
    """It works, or may work; somebody should look at it."""
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """The check's name, which stays the same from version to version: `clock`, `registration`, …"""
    verdict: Verdict
    title: str
    """What was looked at."""
    cause: str
    """What was seen there, in a sentence."""
    fault: Fault | None = None
    remedy: str = ""
    who: Who | None = None
    """Who must act."""
    details: tuple[str, ...] = ()
    sign_in: bool = False
    """It fails only because somebody must sign in."""


FAULTS = {
    Fault.CLIENT: "the mail program or the person at it",
    Fault.MAILFERRY: "mailferry or its settings",
    Fault.MICROSOFT_SIGN_IN: "Microsoft's sign-in service",
    Fault.EXCHANGE: "Exchange",
    Fault.NETWORK: "the network",
}
ACTORS: dict[Who, str] = {
    "user": "the mailbox's user",
    "administrator": "the organisation's administrator",
    "operator": "whoever runs mailferry",
    "nobody": "nobody; it passes",
}


def ok(check: str, title: str, cause: str, *details: str) -> Finding:
    return Finding(check, Verdict.OK, title, cause, details=details)


def warn(
    check: str, title: str, cause: str, fault: Fault, remedy: str, who: Who = "operator", details: Iterable[str] = ()
) -> Finding:
    return Finding(check, Verdict.WARN, title, cause, fault, remedy, who, tuple(details))


def fail(
    check: str, title: str, cause: str, fault: Fault, remedy: str, who: Who = "operator", details: Iterable[str] = ()
) -> Finding:
    return Finding(check, Verdict.FAIL, title, cause, fault, remedy, who, tuple(details))


def explained(check: str, title: str, row: Explanation, *details: str) -> Finding:
    """A failure that the table of explanations knows, or shows raw."""
    return fail(check, title, row.cause, row.fault, row.remedy, row.who, filter(None, details))


def worst(findings: Iterable[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    return next((verdict for verdict in (Verdict.FAIL, Verdict.WARN) if verdict in verdicts), Verdict.OK)


def plain(finding: Finding) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "check": finding.check,
        "verdict": finding.verdict.value,
        "title": finding.title,
        "cause": finding.cause,
        "fault": finding.fault.value if finding.fault else None,
        "remedy": finding.remedy or None,
        "who": finding.who,
        "details": list(finding.details),
    }


def told(finding: Finding) -> str:
    """As lines for a terminal, without an end."""
    return "\n".join(_lines(finding))


def summary(findings: Iterable[Finding]) -> str:
    """The last word: how many are how, and with which to begin."""
    found = list(findings)
    fails = [finding for finding in found if finding.verdict is Verdict.FAIL]
    warns = [finding for finding in found if finding.verdict is Verdict.WARN]
    if not fails and not warns:
        return f"All is well: {_count(len(found), 'check')}, nothing to complain about."
    counts = [
        *([_count(len(fails), "failure")] if fails else []),
        *([_count(len(warns), "warning")] if warns else []),
    ]
    first = (fails or warns)[0]
    return f"{' and '.join(counts)}. Begin with: {first.title}. {first.remedy}".rstrip()


def _lines(finding: Finding) -> Iterator[str]:
    label = finding.verdict.value if finding.verdict is not Verdict.FAIL else "FAIL"
    yield from _wrapped(f"{finding.title}: {finding.cause}", f"{label:4}  ")
    if finding.verdict is not Verdict.OK:
        blame = f"Whose fault: {FAULTS[finding.fault]}. " if finding.fault else ""
        actor = f"Who must act: {ACTORS[finding.who]}." if finding.who else ""
        if blame or actor:
            yield from _wrapped(f"{blame}{actor}".strip(), "      ")
        if finding.remedy:
            yield from _wrapped(f"What to do: {finding.remedy}", "      ")
    for detail in finding.details:
        yield from _wrapped(detail, "      - ")


def _wrapped(text: str, before: str) -> list[str]:
    return textwrap.wrap(
        text,
        LINE_CHARACTERS,
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
