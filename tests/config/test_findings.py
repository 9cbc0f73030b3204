from __future__ import annotations

from pathlib import Path

from proxy.config.findings import ConfigurationError, Finding, Place, quoted, refusal


def test_a_finding_is_one_line() -> None:
    finding = Finding("error", Path("c.yaml"), 7, "accounts[0].login", "is missing", "write one")
    assert str(finding) == "c.yaml:7: accounts[0].login: is missing; write one"
    assert str(Finding("error", Path("c.yaml"), 1, "", "is no YAML", "mend it")) == "c.yaml:1: is no YAML; mend it"


def test_the_exception_holds_all_findings_and_reads_as_their_lines() -> None:
    first = Finding("error", Path("a"), 1, "k", "p", "r")
    second = Finding("warning", Path("b"), 2, "k", "p", "r")
    error = ConfigurationError([first, second])
    assert error.findings == (first, second)
    assert str(error) == "a:1: k: p; r\nb:2: k: p; r"
    assert refusal(Path("a"), "p", "r", key="k").findings == (first,)


def test_places_step_into_keys_and_items() -> None:
    place = Place(Path("f"), 1).at(2, "apps").at(3, "my app").item(4, 0)
    assert (place.line, place.key, str(place)) == (4, "apps.'my app'[0]", "f:4")


def test_long_values_are_cut() -> None:
    assert quoted("x" * 100) == repr("x" * 60 + "…")
    assert quoted("a\nb") == r"'a\nb'"
