"""The sealed table: one key for all rows, whatever is cut off; what is restored never undoes what is newer."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from proxy.accounts.keys import FileKey, KeyPlace, KeyUnusable
from proxy.accounts.rows import Rows
from proxy.accounts.sealed import (
    JSON,
    Record,
    Restored,
    Rotated,
    SealedTable,
    Snapshot,
    StoreDamaged,
    StoreKeyWrong,
    StoreUnavailable,
    Superseded,
)
from proxy.accounts.vault import Vault, WrongKey
from tests.accounts.key_places import KEY, NEXT_KEY, HeldKey

ALICE, BOB, CAROL = "grant/work/alice@contoso.com", "grant/work/bob@contoso.com", "grant/work/carol@contoso.com"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder / "tokens.sqlite"


@pytest.fixture
def place() -> HeldKey:
    return HeldKey()


@pytest.fixture
def table(file: Path, place: HeldKey) -> Iterator[SealedTable]:
    with closing(SealedTable(file, place)) as opened:
        opened.save(ALICE, {"n": 1}, 0)
        opened.save(BOB, {"n": 2}, 0)
        yield opened


def found(file: Path, place: KeyPlace) -> dict[str, Record]:
    with closing(SealedTable(file, place)) as opened:
        return dict(opened.snapshot().records)


BOTH = {ALICE: Record(1, {"n": 1}), BOB: Record(1, {"n": 2})}


# --- a new store, and what is there


def test_a_key_is_made_only_for_a_new_store(file: Path) -> None:
    place = HeldKey()
    for _ in range(2):
        SealedTable(file, place).close()
    assert place.made == [True, False, False]


def test_a_store_that_has_lost_its_key_is_not_given_another(tmp_path: Path, file: Path) -> None:
    key = FileKey(tmp_path / "key", created=True)
    with closing(SealedTable(file, key)) as table:
        table.save(ALICE, {"n": 1}, 0)
    (tmp_path / "key").rename(tmp_path / "kept")
    with pytest.raises(KeyUnusable, match="There is no key file"):
        SealedTable(file, key)
    assert not (tmp_path / "key").exists()
    (tmp_path / "kept").rename(tmp_path / "key")
    assert found(file, key) == {ALICE: Record(1, {"n": 1})}


def test_an_empty_file_is_damage_not_a_new_store(file: Path, place: HeldKey) -> None:
    file.touch(0o600)
    with pytest.raises(StoreDamaged, match="Nothing in it was changed"):
        SealedTable(file, place)


def test_a_log_without_its_file_is_damage_not_a_new_store(file: Path, place: HeldKey) -> None:
    log = file.with_name("tokens.sqlite-wal")
    log.write_bytes(b"what was committed last")
    with pytest.raises(StoreDamaged, match=r"move .*/tokens\.sqlite\* away"):
        SealedTable(file, place)
    assert log.read_bytes() == b"what was committed last"
    assert not file.exists()


@pytest.mark.usefixtures("table")
def test_what_is_damaged_stays_as_it_is(file: Path, tmp_path: Path, place: HeldKey) -> None:
    copy = tmp_path / "tokens.sqlite"
    for each in file.parent.iterdir():
        shutil.copy(each, tmp_path)
    SealedTable(copy, place).close()
    octets = bytearray(copy.read_bytes())
    octets[4096:4196] = b"\xff" * 100
    copy.write_bytes(octets)
    with pytest.raises(StoreDamaged):
        SealedTable(copy, place)
    assert copy.read_bytes() == octets


def test_a_link_in_the_stores_place_is_not_followed(file: Path, tmp_path: Path, place: HeldKey) -> None:
    SealedTable(tmp_path / "elsewhere", place).close()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="Too many levels of symbolic links"):
        SealedTable(file, place)


def test_modes_are_narrowed_and_that_is_logged(
    file: Path, place: HeldKey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = SealedTable(file, place)
    opened.save(ALICE, {"n": 1}, 0)
    there = tmp_path / "killed"
    shutil.copytree(file.parent, there)  # with its log
    opened.close()
    names = ["tokens.sqlite", "tokens.sqlite-wal"]
    for name in names:
        (there / name).chmod(0o644)
    with closing(SealedTable(there / "tokens.sqlite", place)):
        assert [stat.S_IMODE((there / name).stat().st_mode) for name in names] == [0o600, 0o600]
    assert caplog.text.count("others could read the store; now only we can") == 2


# --- a new key


def key_ids(folder: Path, key: bytes) -> list[str]:
    """The files that hold something which this key sealed."""
    mark = Vault(key).seal("", b"")[:9]
    return [each.name for each in folder.iterdir() if mark in each.read_bytes()]


def test_all_is_sealed_with_the_new_key_and_nothing_with_the_old(
    table: SealedTable, file: Path, place: HeldKey
) -> None:
    for version in range(1, 60):
        table.save(ALICE, {"text": "x" * 5_000, "n": version}, version)
    table.save(ALICE, {"n": 1}, 60)
    assert table.rotate() == Rotated(2, "")
    assert place.key == NEXT_KEY
    assert key_ids(file.parent, KEY) == []
    assert key_ids(file.parent, NEXT_KEY) == ["tokens.sqlite"]
    assert table.load(ALICE) == Record(61, {"n": 1})
    assert table.save(BOB, {"n": 3}, 1) == 2
    table.close()
    assert found(file, HeldKey(NEXT_KEY)) == {ALICE: Record(61, {"n": 1}), BOB: Record(2, {"n": 3})}
    with pytest.raises(StoreKeyWrong):
        SealedTable(file, HeldKey(KEY))


def test_versions_go_on_over_a_rotation_and_a_deletion(table: SealedTable) -> None:
    table.delete(ALICE, 1)
    table.rotate()
    assert table.load(ALICE) is None
    assert table.save(ALICE, {"n": 9}, 0) == 3
    with pytest.raises(Superseded):
        table.save(ALICE, {"n": 10}, 1)


def test_a_key_in_a_file_gives_way_to_a_new_one(tmp_path: Path, file: Path) -> None:
    key = FileKey(tmp_path / "key", created=True)
    with closing(SealedTable(file, key)) as table:
        table.save(ALICE, {"n": 1}, 0)
        before = (tmp_path / "key").read_bytes()
        table.rotate()
    assert (tmp_path / "key").read_bytes() != before
    assert not (tmp_path / "key.next").exists()
    assert found(file, key) == {ALICE: Record(1, {"n": 1})}


def test_a_rotation_that_was_cut_off_after_its_commit_is_finished_by_the_next_start(
    table: SealedTable, file: Path, place: HeldKey
) -> None:
    place.fixed = True
    assert table.rotate() == Rotated(2, "Put it there yourself.")
    table.close()
    assert (place.key, place.following) == (KEY, NEXT_KEY)
    place.fixed = False
    assert found(file, place) == BOTH
    assert (place.key, place.following) == (NEXT_KEY, None)


def test_a_rotation_that_was_cut_off_before_its_commit_changes_nothing(
    table: SealedTable, file: Path, place: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Rows, "put_all", cut_off)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        table.rotate()
    assert table.load(ALICE) == Record(1, {"n": 1}), "it works on with the old key"
    assert table.save(BOB, {"n": 3}, 1) == 2
    table.close()
    monkeypatch.undo()
    assert found(file, place) == {ALICE: Record(1, {"n": 1}), BOB: Record(2, {"n": 3})}
    assert (place.key, place.following) == (KEY, NEXT_KEY)
    with closing(SealedTable(file, place)) as again:
        assert again.rotate() == Rotated(2, "")
    assert (place.key, place.following) == (NEXT_KEY, None), "the key that was made is used"


def test_a_key_where_mailferry_may_not_write_stays_in_use_beside_the_old(
    table: SealedTable, file: Path, place: HeldKey, caplog: pytest.LogCaptureFixture
) -> None:
    place.fixed = True
    table.rotate()
    table.close()
    assert found(file, place) == BOTH
    assert "the new key is in use, but not in its place" in caplog.text
    with closing(SealedTable(file, place)) as again, pytest.raises(KeyUnusable, match="Put it there yourself"):
        again.rotate()  # onto itself would change nothing; first comes what is left to do
    assert found(file, HeldKey(NEXT_KEY)) == BOTH, "a person has put it in place"


def test_a_rotation_first_finishes_the_one_before(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    key = FileKey(tmp_path / "key", created=True)
    with closing(SealedTable(file, key)) as table:
        table.save(ALICE, {"n": 1}, 0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", full)
            assert "The next start of mailferry tries again" in table.rotate().left_to_do
        unplaced = (tmp_path / "key.next").read_bytes()
        assert table.rotate() == Rotated(1, "")
    assert (tmp_path / "key").read_bytes() != unplaced
    assert not (tmp_path / "key.next").exists()
    assert found(file, key) == {ALICE: Record(1, {"n": 1})}


def test_a_store_of_neither_key_is_told(table: SealedTable, file: Path) -> None:
    table.close()
    with pytest.raises(StoreKeyWrong, match="Put back the key file"):
        SealedTable(file, HeldKey(bytes(32), following=NEXT_KEY))
    assert found(file, HeldKey()) == BOTH


def test_a_damaged_row_stops_a_rotation_before_anything_is_written(
    table: SealedTable, file: Path, place: HeldKey
) -> None:
    table._rows[table._row(BOB)] = Vault(KEY).seal("another", b"{}")
    with pytest.raises(StoreDamaged):
        table.rotate()
    assert table.load(ALICE) == Record(1, {"n": 1})
    with pytest.raises(WrongKey):
        Vault(NEXT_KEY).open("check", table._rows["check"])


def test_when_there_is_no_room_to_scrub_the_rotation_holds(
    table: SealedTable, place: HeldKey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Rows.scrub

    def scrub(rows: Rows) -> None:
        rows.conn.connection.execute("PRAGMA query_only=1")
        real(rows)

    monkeypatch.setattr(Rows, "scrub", scrub)
    assert table.rotate() == Rotated(2, "")
    assert place.key == NEXT_KEY
    assert "may still lie in free parts" in caplog.text


# --- everything at one moment, and back


def snapshot(table: SealedTable, /, **records: Record) -> Snapshot:
    """Of this store's lineage."""
    names = {"alice": ALICE, "bob": BOB, "carol": CAROL}
    return Snapshot(table.snapshot().lineage, {names[name]: record for name, record in records.items()})


def restored(table: SealedTable, of: Snapshot, *, replace: bool = False, rehearse: bool = False) -> Restored:
    return table.restore(of, replace=replace, rehearse=rehearse)


def data(table: SealedTable) -> dict[str, dict[str, JSON]]:
    return {name: record.data for name, record in table.snapshot().records.items()}


def test_a_snapshot_holds_all_records_but_no_deleted_one(table: SealedTable) -> None:
    table.save(CAROL, {}, 0)
    table.delete(CAROL, 1)
    assert table.snapshot().records == BOTH
    assert "n" not in repr(table.snapshot()).replace("lineage", "").replace("Snapshot", "")


def test_the_lineage_is_the_stores_and_outlives_its_key(table: SealedTable, tmp_path: Path) -> None:
    before = table.snapshot().lineage
    table.rotate()
    assert table.snapshot().lineage == before
    with closing(SealedTable(tmp_path / "other", HeldKey())) as other:
        assert other.snapshot().lineage != before


def test_what_is_missing_comes_back(table: SealedTable) -> None:
    assert restored(table, snapshot(table, carol=Record(7, {"n": 3}))) == Restored((CAROL,), (), ())
    assert table.load(CAROL) == Record(8, {"n": 3}), "a writer that saw version 7 is superseded"


def test_what_is_older_here_is_replaced_and_what_is_newer_kept(table: SealedTable) -> None:
    table.save(BOB, {"n": 22}, 1)
    old = snapshot(table, alice=Record(5, {"n": 11}), bob=Record(1, {"n": 2}))
    assert restored(table, old) == Restored((ALICE,), (), (BOB,))
    assert data(table) == {ALICE: {"n": 11}, BOB: {"n": 22}}
    assert restored(table, old, replace=True) == Restored((BOB,), (ALICE,), (BOB,))
    assert table.load(BOB) == Record(3, {"n": 2})


def test_what_was_signed_out_since_stays_so(table: SealedTable) -> None:
    before = table.snapshot()
    table.delete(BOB, 1)
    assert restored(table, before) == Restored((), (ALICE,), (BOB,))
    assert table.load(BOB) is None
    assert restored(table, before, replace=True).written == (BOB,)
    assert table.load(BOB) == Record(3, {"n": 2})


def test_of_another_store_nothing_can_be_said_to_be_older(table: SealedTable) -> None:
    other = Snapshot("another", {ALICE: Record(99, {"n": 11}), BOB: Record(1, {"n": 2}), CAROL: Record(4, {"n": 3})})
    assert restored(table, other) == Restored((CAROL,), (BOB,), (ALICE,))
    assert restored(table, other) == Restored((), (BOB, CAROL), (ALICE,)), "once more changes nothing"
    assert data(table) == {ALICE: {"n": 1}, BOB: {"n": 2}, CAROL: {"n": 3}}
    assert restored(table, other, replace=True) == Restored((ALICE,), (BOB, CAROL), (ALICE,))
    assert restored(table, other, replace=True) == Restored((), (ALICE, BOB, CAROL), ())


def test_a_rehearsal_says_the_same_and_writes_nothing(table: SealedTable) -> None:
    old = snapshot(table, alice=Record(5, {"n": 11}), bob=Record(1, {"n": 0}))
    assert restored(table, old, rehearse=True) == Restored((ALICE,), (), (BOB,))
    assert table.snapshot().records == BOTH
    assert restored(table, old) == Restored((ALICE,), (), (BOB,))


def test_all_is_restored_or_nothing(table: SealedTable) -> None:
    table._rows.conn.connection.execute("PRAGMA max_page_count=1")
    big = cast("dict[str, JSON]", {"text": "x" * 9_000})
    with pytest.raises(StoreUnavailable, match="full"):
        restored(table, snapshot(table, alice=Record(5, {"n": 11}), bob=Record(5, big)))
    assert table.snapshot().records == BOTH


def test_a_restored_store_has_its_own_key(table: SealedTable, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    with closing(SealedTable(there / "tokens.sqlite", HeldKey(NEXT_KEY))) as other:
        restored(other, table.snapshot())
        assert data(other) == data(table)
    assert key_ids(there, KEY) == []
    assert os.listdir(there) == ["tokens.sqlite"]
