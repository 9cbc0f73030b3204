"""All faults in their order, how often each is injected, and the table of what was lost. Not a test.

`LONG` is what `tests/faults/run` does, and takes some ten minutes; `SHORT` is the part of `tests/run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.faults import cutting, jumping, killing, scarcity, signing
from tests.faults.fleet import Host
from tests.faults.scene import Finding

MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    inject: Callable[[Host, int], Finding]
    short: int
    """How often within `tests/run`; what it means, the fault says."""
    long: int


FAULTS = (
    Fault("kill-logins", killing.during_logins, 1, 30),
    Fault("kill-refreshes", killing.during_refreshes, 1, 30),
    Fault("kill-store-writes", killing.during_store_writes, 1, 30),
    Fault("kill-relay", killing.during_relay, 1, 10),
    Fault("kill-upstream", killing.upstream_in_relay, 1, 10),
    Fault("cut-behind", cutting.behind, 1, 5),
    Fault("cut-before", cutting.before, 1, 5),
    Fault("dns", cutting.names, 1, 10),
    Fault("sign-in-down", signing.down, 1, 15),
    Fault("storm", signing.storm, 3, 100),
    Fault("rotation", signing.rotation, 1, 50),
    Fault("clock", jumping.clock, 1, 5),
    Fault("disk-full", scarcity.full_disk, 1, 5),
    Fault("descriptors", scarcity.no_descriptors, 1, 5),
)


def run(faults: Iterable[Fault], *, short: bool, told: Callable[[str], None]) -> list[Finding]:
    """One after the other, before one mail host."""
    findings = []
    with Host() as host:
        for fault in faults:
            started_s = time.monotonic()
            finding = fault.inject(host, fault.short if short else fault.long)
            findings.append(finding)
            told(f"{fault.name}: {finding.injected} injected, {time.monotonic() - started_s:.0f} s, {verdict(finding)}")
            for wrong in finding.wrong[:MAX_SHOWN]:
                told(f"  {wrong}")
    return findings


def verdict(finding: Finding) -> str:
    return f"{len(finding.wrong)} wrong" if finding.wrong else "nothing lost"


def table(findings: Sequence[Finding]) -> str:
    """As Markdown, for the README."""
    lines = [
        "| Fault | injected | logins that came through | messages acknowledged, all found octet for octet "
        "| messages cut | lost |",
        "|---|---|---|---|---|---|",
    ]
    for one in findings:
        fault = f"{one.fault} ({one.note})" if one.note else one.fault
        lost = f"**{len(one.wrong)}**" if one.wrong else "nothing"
        counts = " | ".join(f"{count:,}" for count in (one.injected, one.logins, one.acknowledged, one.unacknowledged))
        lines.append(f"| {fault} | {counts} | {lost} |")
    return "\n".join(lines)
