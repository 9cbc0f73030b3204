"""A backup's file: it opens with its passphrase as it was made, and otherwise not at all."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.accounts.backup import (
    FIRST_LINE,
    MAX_LOG2_N,
    Backup,
    BackupUnusable,
    Head,
    is_backup,
    new_head,
    open_files,
    open_records,
    parse,
    seal_files,
    seal_records,
)
from proxy.accounts.sealed import Record, Snapshot
from proxy.accounts.vault import Vault

MADE_AT = "2026-10-17T08:00:00Z"
CHEAP = Head(MADE_AT, bytes(16), log2_n=4)
KEY = bytes(range(32))
SNAPSHOT = Snapshot("a1b2", {"grant/work/alice@contoso.com": Record(7, {"refresh_token": "0.secret", "at": 1.5})})
FILES = {"account-alice.yaml": "accounts:\n- login: alice\n", "app-work.yaml": "apps: {}\n"}


def made(head: Head = CHEAP, key: bytes = KEY) -> Backup:
    return Backup(head, seal_records(key, head.text, SNAPSHOT), seal_files(key, head.text, FILES))


def test_what_is_sealed_comes_back() -> None:
    found = parse(made().text)
    assert found == replace(made(), records=found.records, files=found.files)
    assert open_records(KEY, found.head.text, found.records) == SNAPSHOT
    assert open_files(KEY, found.head.text, found.files) == FILES


def test_the_form_is_the_documented_one() -> None:
    first, head, *boxes = made(new_head(MADE_AT)).text.split("\n")
    assert first == "mailferry backup 1"
    fields = json.loads(head)
    assert fields.pop("salt")
    assert fields == {"kdf": "scrypt", "ln": 17, "made_at": MADE_AT, "p": 1, "r": 8}
    assert [bool(box) for box in boxes] == [True, True, False]


def test_nothing_but_the_time_stands_in_clear() -> None:
    for clear in ("alice", "contoso", "secret", "refresh", "a1b2", "yaml"):
        assert clear not in made().text
        assert clear not in repr(made())


def test_two_backups_have_two_keys() -> None:
    one, two = (replace(new_head(MADE_AT), log2_n=4) for _ in range(2))
    assert one.salt != two.salt
    assert one.key("the passphrase") != two.key("the passphrase")
    assert one.key("the passphrase") == one.key("the passphrase") != one.key("the Passphrase")


def test_the_key_costs_what_it_should() -> None:
    """A known answer, of `openssl kdf … SCRYPT`, so that old backups open for ever."""
    head = Head(MADE_AT, b"sixteen octets s")
    assert (head.log2_n, head.r, head.p) == (17, 8, 1)
    assert head.key("correct horse").hex() == KNOWN_KEY


KNOWN_KEY = "6cf20399c4b8a5ae7fbe5a639a353aa3d4020a3cef11d619a0466d85c64f64c4"


def test_a_passphrase_is_the_same_however_it_was_typed() -> None:
    assert CHEAP.key("Schlüssel") == CHEAP.key("Schlu\N{COMBINING DIAERESIS}ssel")


def open_all(text: str, key: bytes) -> None:
    found = parse(text)
    open_records(key, found.head.text, found.records)
    open_files(key, found.head.text, found.files)


def refusal(text: str, key: bytes = KEY) -> str:
    with pytest.raises(BackupUnusable) as refused:
        open_all(text, key)
    return refused.value.text


def test_a_wrong_passphrase_is_told() -> None:
    assert "passphrase is not the one" in refusal(made().text, bytes(32))


def test_no_other_base64_of_the_same_octets_is_taken() -> None:
    head = replace(CHEAP, salt=b"16 octets of it.")
    assert f"{head.text[-6:]}" == 'Lg=="}'
    assert refusal(made(head).text.replace('Lg=="}', 'Lh=="}')).startswith(NOT_WHOLE)


NOT_WHOLE = "The backup is not whole, or was altered"


@given(st.data())
def test_no_altered_octet_goes_unseen(data: st.DataObject) -> None:
    text = made().text
    at = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda it: it != text[at]))
    assert refusal(text[:at] + character + text[at + 1 :])


@given(st.integers(0, len(made().text) - 1))
def test_no_shortened_one_is_taken(length: int) -> None:
    assert refusal(made().text[:length])


def test_a_part_of_another_backup_does_not_fit_in() -> None:
    ours, theirs = made(), made(replace(CHEAP, made_at="2026-10-18T08:00:00Z"))
    assert refusal(replace(ours, records=theirs.records).text).startswith(NOT_WHOLE)
    assert refusal(replace(ours, records=ours.files).text).startswith(NOT_WHOLE)
    assert refusal(replace(ours, files=ours.records).text).startswith(NOT_WHOLE)


@pytest.mark.parametrize("text", ["", "my notes\n", "\0\1\2", f"{FIRST_LINE} \n"])
def test_what_is_no_backup_is_told(text: str) -> None:
    assert refusal(text).startswith(("This is no backup", "This backup is of another form"))


def test_a_newer_form_is_told() -> None:
    newer = made().text.replace(FIRST_LINE, "mailferry backup 2")
    assert "newer mailferry" in refusal(newer)
    assert is_backup(newer[:64].encode())
    assert not is_backup(b"mail")


@pytest.mark.parametrize(
    "change",
    [
        {"ln": MAX_LOG2_N + 1},
        {"ln": 0},
        {"r": 10**9},
        {"p": 10**9},
        {"p": "1"},
        {"kdf": "none"},
        {"made_at": "\x1b[2J"},
        {"salt": "?"},
        {"salt": 1},
        {"more": 1},
    ],
)
def test_a_forged_head_is_refused_before_it_costs_anything(change: dict[str, object]) -> None:
    first, head, *boxes = made().text.split("\n")
    forged = json.dumps(dict(sorted({**json.loads(head), **change}.items())))
    assert refusal("\n".join([first, forged, *boxes])).startswith(NOT_WHOLE)


@pytest.mark.parametrize("head", ["[]", "{", "null", '{"ln": 4}', "[" * 100_000])
def test_a_head_that_is_none_is_refused(head: str) -> None:
    first, _, *boxes = made().text.split("\n")
    assert refusal("\n".join([first, head, *boxes])).startswith(NOT_WHOLE)


@pytest.mark.parametrize(
    "content", [[], {}, {"lineage": "a", "records": {"n": {"version": 0, "data": {}}}}, {"lineage": 1, "records": {}}]
)
def test_sealed_records_of_another_form_are_refused(content: object) -> None:
    plain = json.dumps(content).encode()
    sealed = replace(made(), records=_box(Vault(KEY).seal(f"records\n{CHEAP.text}", plain)))
    assert refusal(sealed.text).startswith(NOT_WHOLE)


@pytest.mark.parametrize("content", [[], {"a.yaml": 1}])
def test_sealed_files_of_another_form_are_refused(content: object) -> None:
    sealed = replace(made(), files=_box(Vault(KEY).seal(f"files\n{CHEAP.text}", json.dumps(content).encode())))
    assert refusal(sealed.text).startswith(NOT_WHOLE)


def _box(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()
