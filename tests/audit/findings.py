"""The audit: what pip-audit and detect-secrets find, less what has a written reason. Not a test.

`python -m tests.audit` runs it (tests/run does); `test_audit.py` shows that it finds what it should.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
EXCEPTIONS: dict[str, list[dict[str, Any]]] = tomllib.loads((HERE / "exceptions.toml").read_text())
ADVISORIES: list[dict[str, str]] = tomllib.loads((HERE / "advisories.toml").read_text())["advisory"]
LIMIT_S = 600
NOT_FOR_US = "KeywordDetector"  # it reports each word `password`; ruff's S105 to S107 read the code behind the word
INLINE = "detect_secrets.filters.allowlist.is_line_allowlisted"  # a reason stands in exceptions.toml, not in a pragma


@dataclass(frozen=True)
class Audited:
    """What came of pip-audit."""

    looked_at: int
    """Packages that its service knows."""
    holes: tuple[str, ...]


def run_pip_audit() -> Audited:
    """Ask pip-audit's service about all that is installed. It may know nothing, as behind a mirror, or not answer."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    try:
        return read_pip_audit(json.loads(ran.stdout))
    except json.JSONDecodeError:
        return Audited(0, ())


def read_pip_audit(report: dict[str, Any]) -> Audited:
    """Its report, less what has a reason."""
    known = {id for each in EXCEPTIONS["vulnerability"] for id in each["ids"]}
    looked_at = [each for each in report["dependencies"] if "skip_reason" not in each]
    holes = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
        for each in looked_at
        for hole in each["vulns"]
        if not known & {hole["id"], *hole.get("aliases", ())}
    ]
    return Audited(len(looked_at), tuple(holes))


def committed_files() -> list[str]:
    """What git has, or would take."""
    command = ["git", "-c", "core.quotePath=off", "ls-files", "--cached", "--others", "--exclude-standard"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    return [name for name in told.splitlines() if (ROOT / name).is_file()]


def find_secrets(files: Sequence[str], root: Path = ROOT) -> list[str]:
    """Where something looks like a secret, and no reason is written: file, line and kind, never the text."""
    command = [
        "-m",
        "detect_secrets",
        "scan",
        "--no-verify",
        "--disable-plugin",
        NOT_FOR_US,
        "--disable-filter",
        INLINE,
    ]
    ran = subprocess.run(
        [sys.executable, *command, *files], cwd=root, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    found = []
    for file, secrets in json.loads(ran.stdout)["results"].items():
        lines = (root / file).read_text().splitlines()
        for secret in secrets:
            number = secret["line_number"]
            if not excused(file, lines[number - 1]):
                found.append(f"{file}:{number}: {secret['type']}")
    return sorted(set(found))


def excused(file: str, line: str) -> bool:
    return any(each["file"] == file and each["contains"] in line for each in EXCEPTIONS["secret"])
