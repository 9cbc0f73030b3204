"""The audit finds what it should, and every exception anywhere has its reason (tests of findings.py)."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.audit import findings
from tests.audit.findings import ADVISORIES, EXCEPTIONS, ROOT, find_secrets, read_pip_audit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOQA = re.compile(r"# noqa\b(?::? *(?P<rules>[A-Z]+[0-9]+(?:, *[A-Z]+[0-9]+)*))?(?P<reason>.*)")
ADVISORY = [pytest.param(each, id=each["id"]) for each in ADVISORIES]


# --- libraries


def runtime() -> set[str]:
    """All that mailferry needs to run, and what that needs."""
    open_names, closed = ["mailferry"], set[str]()
    while open_names:
        name = canonicalize_name(open_names.pop())
        if name in closed:
            continue
        try:
            needed = [Requirement(each) for each in distribution(name).requires or ()]
        except PackageNotFoundError:  # of another platform
            continue
        closed.add(name)
        open_names += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return closed


@pytest.mark.parametrize("advisory", ADVISORY)
def test_what_is_installed_has_no_known_hole(advisory: dict[str, str]) -> None:
    name = advisory["package"]
    if name in runtime():
        assert Version(distribution(name).version) >= Version(advisory["fixed"])
    else:
        assert name == "setuptools", "a list of what we do not use is nobody's"


@pytest.mark.parametrize("advisory", ADVISORY)
def test_what_we_ask_for_ourselves_excludes_the_hole(advisory: dict[str, str]) -> None:
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    for requirement in map(Requirement, asked):
        if canonicalize_name(requirement.name) == advisory["package"]:
            lowest = min(Version(each.version) for each in requirement.specifier if each.operator == ">=")
            assert lowest >= Version(advisory["fixed"])


def test_every_hole_that_pyproject_names_is_in_the_list_or_excused() -> None:
    named = set(re.findall(r"CVE-\d{4}-\d{4,}", (ROOT / "pyproject.toml").read_text()))
    known = {each["id"] for each in ADVISORIES} | {id for each in EXCEPTIONS["vulnerability"] for id in each["ids"]}
    assert named <= known


def test_a_hole_is_reported_unless_there_is_a_reason() -> None:
    hole = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
    excused_hole = {"id": "PYSEC-2026-1939", "aliases": [], "fix_versions": []}
    report = {
        "dependencies": [
            {"name": "a", "version": "1.0", "vulns": [hole]},
            {"name": "sqlitedict", "version": "2.1.0", "vulns": [excused_hole]},
            {"name": "b", "version": "1.0", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    audited = read_pip_audit(report)
    assert audited.looked_at == 3
    assert audited.holes == ("a 1.0: PYSEC-1, mended in 2.0",)


# --- secrets


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("-----BEGIN " + "RSA PRIVATE KEY-----", "Private Key"),
        ('x = "AKIA' + 'IOSFODNN7EXAMPLA"', "AWS Access Key"),
        ("go to https://alice:" + "hunter2222@mail.example/", "Basic Auth Credentials"),
        ('key = "' + "".join(f"{(17 * n) % 251:02x}" for n in range(32)) + '"', "Hex High Entropy String"),
    ],
)
def test_the_search_finds_a_secret(tmp_path: Path, planted: str, kind: str) -> None:
    (tmp_path / "note.py").write_text(f"x = 1\n{planted}  # pragma: allowlist secret\n")
    (tmp_path / "clean.py").write_text('password = ask("password")\n')
    assert find_secrets(["note.py", "clean.py"], tmp_path) == [f"note.py:2: {kind}"]


def test_an_exception_that_nothing_needs_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [each["file"] for each in EXCEPTIONS["secret"]]
    assert find_secrets(files) == []
    monkeypatch.setattr(findings, "excused", lambda _file, _line: False)
    assert {find.partition(":")[0] for find in find_secrets(files)} == set(files)


def test_every_exception_has_its_reason() -> None:
    assert all(len(each["why"]) > 20 for kind in EXCEPTIONS.values() for each in kind)


# --- ruff's rules


def exceptions(folder: str) -> list[tuple[str, str, str]]:
    """Each `noqa`: where, which rules, and the reason beside it."""
    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = NOQA.search(line)
            if match is not None and file != Path(__file__):
                where = f"{file.relative_to(ROOT)}:{number}"
                found.append((where, match["rules"] or "", match["reason"].strip(" -:")))
    return found


def test_no_exception_is_from_all_rules() -> None:
    assert [where for folder in ("proxy", "tests") for where, rules, _ in exceptions(folder) if not rules] == []


def test_every_exception_from_a_security_rule_says_why() -> None:
    silent = [where for where, rules, reason in exceptions("proxy") if re.search(r"\bS\d", rules) and not reason]
    assert silent == []


def test_security_rules_hold_for_all_that_runs() -> None:
    lint = PROJECT["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if re.match(r"S\d", rule)] == ["S101"]
    assert [each for each, rules in lint["per-file-ignores"].items() if "S" in rules] == ["tests/**"]
