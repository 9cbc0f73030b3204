"""sqlitedict, mended: what is written is on the disk, nothing is unpickled, and no caller waits for a dead thread."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.accounts.rows import NotBytes, Rows, make_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.sqlite"


@pytest.fixture
def rows(file: Path) -> Iterator[Rows]:
    rows = Rows(file)
    yield rows
    rows.close(force=True)


def on_disk(file: Path) -> dict[str, bytes]:
    """What another process would find, if this one were killed now."""
    copies = file.parent / "copies"
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for each in file.parent.glob(f"{file.name}*"):
        shutil.copy(each, copies)
    with closing(sqlite3.connect(copies / file.name)) as other:
        return dict(other.execute("SELECT key, value FROM records").fetchall())


def fill(rows: Rows) -> None:
    """The disk takes no further page."""
    rows.conn.select_one("PRAGMA max_page_count = 1")  # it is taken as what there is already


def test_every_commit_is_synced(rows: Rows) -> None:
    """sqlitedict switches this off; it is on again, on the very connection that writes."""
    assert rows.conn.select_one("PRAGMA synchronous") == (2,)  # FULL
    assert rows.conn.select_one("PRAGMA journal_mode") == ("wal",)


def test_a_write_is_committed_when_it_returns(rows: Rows, file: Path) -> None:
    rows["a"] = b"1"
    assert on_disk(file) == {"a": b"1"}


def test_values_come_back_as_octets(rows: Rows) -> None:
    rows["a"] = bytes(range(256))
    assert rows["a"] == bytes(range(256))
    assert rows.intact()


def test_a_pickle_is_octets_like_any_other(rows: Rows) -> None:
    rows["a"] = pickle.dumps(1)
    assert rows["a"] == pickle.dumps(1)


@pytest.mark.parametrize("value", ["text", 3, 1.5, None])
def test_a_value_that_was_never_written_here_is_refused(rows: Rows, value: object) -> None:
    rows.conn.execute("INSERT INTO records VALUES ('a', ?)", (value,))
    with pytest.raises(NotBytes):
        rows["a"]


def test_a_failed_write_is_told_to_its_own_caller_and_the_next_one_works(rows: Rows) -> None:
    fill(rows)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        rows["a"] = bytes(10_000)
    rows["a"] = b"2"
    assert rows["a"] == b"2"


def test_while_it_is_open_nobody_else_reads_or_writes_it(rows: Rows, file: Path) -> None:
    rows["a"] = b"1"
    with (
        closing(sqlite3.connect(file, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="database is locked"),
    ):
        other.execute("SELECT * FROM records")
    assert not file.with_name(f"{file.name}-shm").exists()


def test_a_file_that_somebody_else_holds_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Rows(file).close()
    monkeypatch.setattr("proxy.accounts.rows.LOCK_WAIT_S", 0.01)
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            Rows(file)


# --- many at once


def test_many_are_written_in_one_transaction(rows: Rows, file: Path) -> None:
    rows["a"] = b"old"
    rows.put_all({"a": b"new", "b": b"2"})
    assert dict(rows.items()) == on_disk(file) == {"a": b"new", "b": b"2"}
    rows["c"] = b"3"
    assert on_disk(file)["c"] == b"3", "every write is a commit, as before"


def test_when_one_of_many_fails_none_is_written(rows: Rows, file: Path) -> None:
    rows["a"] = b"old"
    fill(rows)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        rows.put_all({"a": b"new", "b": bytes(10_000), "c": b"3"})
    assert dict(rows.items()) == on_disk(file) == {"a": b"old"}
    rows["a"] = b"newer"
    assert on_disk(file) == {"a": b"newer"}


def test_what_was_written_over_is_scrubbed(rows: Rows, file: Path) -> None:
    for n in range(50):
        rows[str(n)] = b"the old text" * 100
    rows.put_all({str(n): b"new" for n in range(50)})
    rows.scrub()
    assert not any(b"the old text" in each.read_bytes() for each in file.parent.glob(f"{file.name}*"))
    rows["a"] = b"1"
    assert rows["a"] == b"1"
    assert rows["7"] == b"new"


# --- a new file


def test_a_new_file_is_whole_and_private_when_it_appears(file: Path) -> None:
    mask = os.umask(0)
    try:
        make_file(file, {"check": b"1"})
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [file.name]
    rows = Rows(file)
    assert dict(rows.items()) == {"check": b"1"}
    rows.close()


def test_what_a_start_that_was_cut_off_left_behind_is_swept_away(file: Path) -> None:
    for leftover in (f".{file.name}.draft", f".{file.name}.draft-wal", f".{file.name}.draft-shm"):
        (file.parent / leftover).write_text("half a file")
    make_file(file, {"check": b"1"})
    assert os.listdir(file.parent) == [file.name]


def test_a_draft_that_points_elsewhere_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (file.parent / f".{file.name}.draft").symlink_to(tmp_path / "precious")
    make_file(file, {"check": b"1"})
    assert (tmp_path / "precious").read_text() == "precious"


# --- sqlitedict's thread


def test_a_file_that_is_no_database_is_told(file: Path) -> None:
    file.write_bytes(b"This is not a database. " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Rows(file)


def test_when_the_thread_dies_its_callers_are_told(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.conn, "_LOOK_S", 0.01)
    with pytest.raises(
        sqlite3.OperationalError, match="integer overflow"
    ):  # at the second row sqlitedict minds no error
        list(rows.conn.select("SELECT abs(n) FROM (SELECT 1 AS n UNION ALL SELECT -9223372036854775808)"))
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="its thread has ended"):
            rows.get("a")


def test_a_slow_answer_is_waited_for(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.conn, "_LOOK_S", 0.001)
    looked = threading.Event()
    alive = rows.conn.is_alive

    def watched() -> bool:
        looked.set()
        return bool(alive())

    monkeypatch.setattr(rows.conn, "is_alive", watched)
    rows.conn.connection.create_function("linger", 0, lambda: looked.wait(30))
    assert rows.conn.select_one("SELECT linger()") == (True,)  # its caller looks after its thread meanwhile


def test_closing_ends_the_thread(file: Path) -> None:
    before = set(threading.enumerate())
    Rows(file).close()
    assert set(threading.enumerate()) <= before
