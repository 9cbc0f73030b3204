from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import document
from proxy.config.document import MappingNode, Node, ScalarNode, SequenceNode, Value, parse, plain, render
from proxy.config.findings import Report

FILE = Path("some.yaml")


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers: libyaml's, and the one of pure Python where the package has no libyaml."""
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))


pytestmark = pytest.mark.usefixtures("_loader")


def told(text: str) -> list[tuple[int, str, str]]:
    report = Report()
    parse(FILE, text, report)
    assert all(finding.file == FILE and finding.severity == "error" for finding in report.findings)
    return [(finding.line, finding.key, finding.problem) for finding in report.findings]


def tree(text: str) -> MappingNode:
    report = Report()
    root = parse(FILE, text, report)
    assert report.findings == []
    return root


def test_every_node_knows_its_line_and_its_whole_key() -> None:
    root = tree("a: 1\nlist:\n  - x: off\n  - [y,\n     'z']\n")
    items = root.entries["list"]
    assert isinstance(items, SequenceNode)
    first, second = items.items
    assert isinstance(first, MappingNode)
    assert isinstance(second, SequenceNode)
    nodes: list[Node] = [root.entries["a"], first.entries["x"], *second.items]
    assert [(node.place.line, node.place.key) for node in nodes] == [
        (1, "a"),
        (3, "list[0].x"),
        (4, "list[1][0]"),
        (5, "list[1][1]"),
    ]


def test_scalars_stay_text_and_only_plain_ones_can_be_nothing() -> None:
    entries = tree("a: off\nb: 'null'\nc: null\nd:\ne: 0o17\nf: 12:30\n").entries
    assert [(node.text, node.is_null) for node in entries.values() if isinstance(node, ScalarNode)] == [
        ("off", False),
        ("null", False),
        ("null", True),
        ("", True),
        ("0o17", False),
        ("12:30", False),
    ]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n...\n", "~"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert tree(text).entries == {}


def test_a_key_that_is_written_twice_names_both_lines_and_the_first_one_stays() -> None:
    report = Report()
    root = parse(FILE, "a:\n  k: 1\n  other: 2\n  k: 3\n", report)
    assert [(f.line, f.key, f.problem) for f in report.findings] == [
        (4, "a.k", "'k' is defined twice, first in line 2")
    ]
    assert plain(root) == {"a": {"k": 1, "other": 2}}


def test_a_tag_is_a_finding_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"a: 1\nb: !!python/object/apply:pathlib.Path.touch [{mark}]\nc: !secret x\n"
    assert told(text) == [(2, "b", "YAML tags are not accepted"), (3, "c", "YAML tags are not accepted")]
    assert not mark.exists()


def test_an_alias_stands_for_its_anchor() -> None:
    assert plain(tree("a: &it [1, x]\nb: *it\n")) == {"a": [1, "x"], "b": [1, "x"]}


@pytest.mark.parametrize("text", ["a: 1\nb: *nothing\n", "a: 1\nb: &b [*b]\n"])
def test_an_alias_of_nothing_before_it(text: str) -> None:
    [(line, key, problem)] = told(text)
    assert (line, key.removesuffix("[0]")) == (2, "b")
    assert problem.startswith("an alias")


def test_an_alias_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_NODES", 1_000)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64))
    [(_, key, problem)] = told(bomb)
    assert re.fullmatch(r"a[78]\[[01]\]", key)  # a7 alone stands for some 2^9 nodes
    assert problem == "more than 1000 values in one file"


def test_depth_is_bounded() -> None:
    assert len(told("a: " + "[" * 50_000)) == 1
    beyond = document.MAX_DEPTH + 1
    [(line, key, problem)] = told("a: " + "[" * beyond + "]" * beyond)
    assert (line, key) == (1, "a" + "[0]" * document.MAX_DEPTH)
    assert problem == f"nested deeper than {document.MAX_DEPTH} levels"
    assert told("a: " + "[" * document.MAX_DEPTH + "]" * document.MAX_DEPTH) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: c: d\n", 2),
        ('a: "open\n', 2),
    ],
)
def test_what_is_not_yaml_names_its_line(text: str, line: int) -> None:
    [(at, key, problem)] = told(text)
    assert (at, key) == (line, "")
    assert problem.startswith("this is not YAML: ")


def test_the_parsers_own_words_show_no_value() -> None:
    report = Report()
    parse(FILE, "client_secret: !hunter2!x y\n", report)
    parse(FILE, "client_secret: *hunter2\n", report)
    parse(FILE, "client_secret: !hunter2 y\n", report)
    assert len(report.findings) == 3
    assert "hunter2" not in "".join(map(str, report.findings))


@pytest.mark.parametrize("text", ["a: \x00", 'a: "\\UFFFFFFFF"', "a: \x1b[0m"])
def test_characters_that_yaml_does_not_know(text: str) -> None:
    assert len(told(text)) == 1


def test_a_second_document_a_list_at_the_top_and_a_list_as_key() -> None:
    assert told("a: 1\n---\nb: 2\n") == [(2, "", "a second YAML document begins here")]
    assert told("- a\n- b\n") == [(1, "", "this is not a list of keys")]
    assert told("a:\n  [x]: 1\n") == [(2, "a.key", "a list or mapping cannot be a key")]


def test_a_key_with_odd_characters_is_shown_on_one_line() -> None:
    [(_, key, _)] = told('"a\\nb": {c: 1, c: 2}\n')
    assert key == r"'a\nb'.c"


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 10**9 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def without_none(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), values, max_size=4))
def test_what_is_rendered_is_read_again(value: Value) -> None:
    report = Report()
    root = parse(FILE, render(value), report)
    assert report.findings == []
    assert plain(root) == without_none(value)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@,? \n\t\\0~\x00\u2028\ufeff")) | st.text())
def test_any_text_ends_in_a_mapping_or_findings(text: str) -> None:
    report = Report()
    root = parse(FILE, text, report)
    assert isinstance(root, MappingNode)
    assert all("\n" not in str(finding) for finding in report.findings)


def test_yaml_has_one_door() -> None:
    """Only document.py imports yaml."""
    folder = Path(document.__file__).parent
    doors = [file.name for file in sorted(folder.glob("*.py")) if "import yaml" in file.read_text(encoding="utf-8")]
    assert doors == ["document.py"]
    assert "yaml" in sys.modules
