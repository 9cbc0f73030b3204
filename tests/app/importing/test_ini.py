"""`ini.py`: as configparser reads it, but it goes on where that gives up."""

from __future__ import annotations

import configparser
import time

from hypothesis import given
from hypothesis import strategies as st

from proxy.app.importing.ini import read_ini

PIECES = (
    "[",
    "]",
    "[a@b]",
    "key",
    " ",
    "\t",
    "=",
    ":",
    "\n",
    "\n\n",
    "#",
    ";",
    "value",
    "\r\n",
    "ä",
    "%(x)s",
    "  more",
)
DOCUMENTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def as_configparser(text: str) -> dict[str, dict[str, str]] | None:
    """None: it does not read it."""
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(text.replace("\r\n", "\n"))
        return {name: dict(parser.items(name)) for name in parser.sections()}
    except configparser.Error:
        return None


@given(DOCUMENTS)
def test_it_reads_what_configparser_reads(text: str) -> None:
    expected = as_configparser(text)
    ini = read_ini(text)
    if expected is None:
        assert ini.strays
    else:
        read = {name: {key: one.value for key, one in each.settings.items()} for name, each in ini.sections.items()}
        assert read == {name: {key: value.rstrip() for key, value in each.items()} for name, each in expected.items()}
        assert ini.strays == []


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    read_ini(text)


def test_lines_are_counted() -> None:
    ini = read_ini("# first\n[One]\nkey = a\n   b\n\nOther: c\n[One]\nx = y\nnonsense\n")
    section = ini.sections["One"]
    assert (section.line, section.settings["key"].line, section.settings["key"].last_line) == (2, 3, 4)
    assert (section.settings["key"].value, section.settings["other"].value) == ("a\nb", "c")
    assert [stray.line for stray in ini.strays] == [7, 8, 9]


def test_a_key_that_stands_twice_is_told_and_the_first_one_counts() -> None:
    ini = read_ini("[a]\nkey = 1\nKEY = 2\n")
    assert ini.sections["a"].settings["key"].value == "1"
    assert [stray.line for stray in ini.strays] == [3]


def test_a_long_line_takes_no_longer_than_it_is() -> None:
    began = time.monotonic()
    read_ini("[a]\na" + " " * 1_000_000 + "b\n[" * 3)
    assert time.monotonic() - began < 2
