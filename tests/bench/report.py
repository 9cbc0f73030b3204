"""What the figures mean: the table for the README, and SPEED.md's goals beside them, met or not.

What it is: pure functions over the figures of one run. What it is not: a test: nothing fails when a goal is missed,
since machines are noisy and only ratios within one run mean something. `__main__` calls it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float]
"""One measurement: figures by the name of their unit."""
Run = Mapping[str, Mapping[str, Figures]]
"""Medians of a run: row -> door -> figures."""

TITLES = {
    "download-1": "download, 1 session: MB/s, CPU-s/GiB",
    "download-8": "download, 8 sessions: MB/s, CPU-s/GiB",
    "upload-1": "upload, 1 session: MB/s, CPU-s/GiB",
    "upload-8": "upload, 8 sessions: MB/s, CPU-s/GiB",
    "noop": "NOOP round trip, p50",
    "login": "warm login, p50; CPU for the session",
    "burst": "logins at once: succeeded, last after",
    "idle": "idle sessions: KiB each; still answering",
    "stall-download": "client stalls: RSS growth, CPU",
    "stall-upload": "upstream stalls: RSS growth, CPU",
    "half-close": "delivered after the client's FIN",
    "upstream-close": "delivered after upstream's close",
    "attack": "warm login under attack, p50 against peace; first login after a start",
    "refusals": "unknown login against wrong password: difference of the means",
    "mbsync": "mbsync from real Dovecot, wall time",
}
_CELLS = {
    "download-1": "{mb_per_s:.0f}, {cpu_s_per_gib:.2f}",
    "download-8": "{mb_per_s:.0f}, {cpu_s_per_gib:.2f}",
    "upload-1": "{mb_per_s:.0f}, {cpu_s_per_gib:.2f}",
    "upload-8": "{mb_per_s:.0f}, {cpu_s_per_gib:.2f}",
    "noop": "{us:.0f} µs",
    "login": "{ms:.1f} ms; {cpu_ms:.1f} ms",
    "burst": "{succeeded:.0f} of {of:.0f}, {s:.2f} s",
    "idle": "{kib_per_session:.0f} KiB (of {sampled:.0f}); {held:.0f} of {of:.0f}",
    "stall-download": "{mib:.1f} MiB, {cpu_s:.2f} s",
    "stall-upload": "{mib:.1f} MiB, {cpu_s:.2f} s",
    "half-close": "{percent:.0f} %",
    "upstream-close": "{percent:.0f} %",
    "attack": "{ratio:.2f} × ({peace_ms:.1f} to {ms:.1f} ms); {first_in_peace_ms:.0f} to {first_ms:.0f} ms",
    "refusals": "{ms:.2f} ms, {standard_errors:.1f} standard errors",
    "mbsync": "{s:.2f} s",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """`unit` of `row` at `door` compared with `factor` times a reference: another door, or the bare number."""

    row: str
    unit: str
    relation: str
    factor: float
    reference: str = ""
    door: str = "mailferry"

    def verdict(self, run: Run) -> tuple[str, bool | None]:
        """What was measured against the goal, in words, and whether it is met; None when a figure is missing."""
        try:
            value = run[self.row][self.door][self.unit]
            base = run[self.row][self.reference][self.unit] if self.reference else 1.0
        except KeyError:
            return "not measured", None
        met = value <= self.factor * base if self.relation == "<=" else value >= self.factor * base
        if not self.reference:
            return f"{value:.4g}", met
        return (f"{value / base:.2f} ×" if base else f"{value:.4g} against 0"), met

    def __str__(self) -> str:
        limit = f"{self.factor:g} × {self.reference}" if self.reference else f"{self.factor:g}"
        return f"{self.row}, {self.unit}, {self.door}: {self.relation} {limit}"


GOALS = (
    *(
        Goal(f"download-{n}", "cpu_s_per_gib", "<=", f, r)
        for n in (1, 8)
        for r, f in (("direct", 1.5), ("dovecot", 0.5), ("emailproxy", 0.2))
    ),
    *(
        Goal(f"upload-{n}", "cpu_s_per_gib", "<=", f, r)
        for n in (1, 8)
        for r, f in (("direct", 1.5), ("dovecot", 0.2), ("emailproxy", 0.3))
    ),
    Goal("download-1", "mb_per_s", ">=", 0.8, "direct"),
    Goal("download-1", "mb_per_s", ">=", 1.5, "dovecot"),
    Goal("upload-1", "mb_per_s", ">=", 0.75, "direct"),
    Goal("upload-1", "mb_per_s", ">=", 1.5, "dovecot"),
    Goal("login", "ms", "<=", 2, "direct"),
    Goal("login", "ms", "<=", 0.05, "emailproxy"),
    Goal("login", "cpu_ms", "<=", 2, "dovecot"),
    Goal("burst", "percent", ">=", 100),
    Goal("noop", "us", "<=", 1.2, "dovecot"),
    Goal("half-close", "percent", ">=", 100),
    Goal("upstream-close", "percent", ">=", 100),
    Goal("idle", "percent", ">=", 100),
    Goal("idle", "kib_per_session", "<=", 32),
    Goal("stall-download", "mib", "<=", 1),
    Goal("stall-upload", "mib", "<=", 1),
    Goal("attack", "ratio", "<=", 2),
    Goal("refusals", "standard_errors", "<=", 3),
    Goal("mbsync", "s", "<=", 1.1, "direct"),
    *(
        Goal(row, "cpu_s_per_gib", "<=", 2, "mailferry", f"mailferry, {tls}")
        for row in ("download-1", "download-8", "upload-1", "upload-8")
        for tls in ("TLS", "STARTTLS")
    ),
)


def median(rounds: Sequence[Figures]) -> dict[str, float]:
    """Figure by figure; and the percentage of what was to come, where there is one."""
    figures = {unit: statistics.median(figures[unit] for figures in rounds) for unit in rounds[0]}
    if "of" in figures:
        part = next(figures[unit] for unit in ("came", "succeeded", "held") if unit in figures)
        figures["percent"] = 100 * part / figures["of"]
    return figures


def table(run: Run, doors: Sequence[str]) -> str:
    """The figures as a Markdown table: a line per row, a column per door."""
    lines = [["measure", *doors]]
    for row, figures in run.items():
        lines.append([TITLES[row], *(_CELLS[row].format(**figures[d]) if d in figures else "" for d in doors)])
    return _markdown(lines)


def goals(run: Run) -> str:
    """SPEED.md's goals for what was measured, as a Markdown table."""
    lines = [["goal", "measured", ""]]
    for goal in GOALS:
        measured, met = goal.verdict(run)
        if met is not None:
            lines.append([str(goal), measured, "met" if met else "**not met**"])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])
