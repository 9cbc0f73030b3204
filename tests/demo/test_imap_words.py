"""The words of an IMAP command, as the practice mailbox reads them."""

from __future__ import annotations

import pytest

from proxy.demo.imap_words import Argument, Bad, flag, listed, parse, spans, text


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"a1 NOOP"], ["a1", "NOOP"]),
        ([rb'a LIST "" "a \"b\" \\"'], ["a", "LIST", "", r'a "b" \\'[:-1]]),
        ([b"a STORE 1 (\\Seen (x) )"], ["a", "STORE", "1", ["\\Seen", ["x"]]]),
        ([b"a APPEND x ", b"(\r\n", b""], ["a", "APPEND", "x", b"(\r\n"]),
        (
            [b"a FETCH 1 (BODY[HEADER.FIELDS (TO)]<0.5> UID)"],
            ["a", "FETCH", "1", ["BODY[HEADER.FIELDS (TO)]<0.5>", "UID"]],
        ),
    ],
)
def test_parse(pieces: list[bytes], expected: list[Argument]) -> None:
    assert parse(pieces) == expected


def test_a_list_that_was_never_opened_is_bad() -> None:
    with pytest.raises(Bad):
        parse([b"a )"])


def test_a_list_is_no_text() -> None:
    assert text(b"literal") == "literal"
    with pytest.raises(Bad):
        text(["x"])


def test_listed_takes_one_or_many() -> None:
    assert listed("UID") == ["UID"]
    assert listed(["UID", b"FLAGS"]) == ["UID", "FLAGS"]


def test_flags_have_their_usual_spelling() -> None:
    assert flag(r"\sEEN") == r"\Seen"
    assert flag("$Own") == "$Own"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("1", [(1, 1)]), ("2:4,*", [(2, 4), (9, 9)]), ("*:3", [(3, 9)]), ("12:*", [(9, 12)])],
)
def test_spans(chosen: str, expected: list[tuple[int, int]]) -> None:
    assert spans(chosen, 9) == expected
