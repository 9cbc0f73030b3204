"""`properties.py`: Java's own examples, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.importing.properties import read_properties


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Truth = Beauty", ("Truth", "Beauty")),
        (" Truth:Beauty", ("Truth", "Beauty")),
        ("Truth                    :Beauty", ("Truth", "Beauty")),
        ("Truth Beauty and more", ("Truth", "Beauty and more")),
        ("fruits     apple, \\\n    pear", ("fruits", "apple, pear")),
        ("cheeses", ("cheeses", "")),
        ("a\\:b=c\\td\\u00e9\\\\", ("a:b", "c\td\u00e9\\")),
        ("key = == value", ("key", "== value")),
        ("key=ends in a backslash\\", ("key", "ends in a backslash")),
    ],
)
def test_a_line(text: str, expected: tuple[str, str]) -> None:
    (only,) = read_properties(text)
    assert (only.key, only.value) == expected


def test_comments_and_lines() -> None:
    properties = read_properties("# one\n! two\n\na=1\nb=2\\\n  3\nc=4\n")
    assert [(each.key, each.line, each.last_line) for each in properties] == [("a", 4, 4), ("b", 5, 6), ("c", 7, 7)]


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read_properties(text)


@given(st.text(alphabet="ab\\=: \t\n#!u0", max_size=80))
def test_nothing_is_lost(text: str) -> None:
    read = {line for each in read_properties(text) for line in range(each.line, each.last_line + 1)}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(" \t\f") and line.lstrip(" \t\f")[0] not in "#!":
            assert number in read
