"""sqlitedict, mended: what is written is on the disk, nothing is unpickled, and no caller waits for a dead thread."""

from __future__ import annotations

import pickle
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.accounts.rows import NotBytes, Rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.sqlite"


@pytest.fixture
def rows(file: Path) -> Iterator[Rows]:
    rows = Rows(file)
    yield rows
    rows.close(force=True)


def test_every_commit_is_synced(rows: Rows) -> None:
    """sqlitedict switches this off; it is on again, on the very connection that writes."""
    assert rows.conn.select_one("PRAGMA synchronous") == (2,)  # FULL
    assert rows.conn.select_one("PRAGMA journal_mode") == ("wal",)


def test_a_write_is_committed_when_it_returns(rows: Rows, file: Path) -> None:
    rows["a"] = b"1"
    other = sqlite3.connect(file)
    assert other.execute("SELECT key, value FROM records").fetchall() == [("a", b"1")]
    other.close()


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


def test_a_failed_write_is_told_to_its_own_caller_and_the_next_one_works(rows: Rows, file: Path) -> None:
    rows.conn.execute("PRAGMA busy_timeout = 1")  # ms; sqlite3's own is 5 s
    other = sqlite3.connect(file)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        rows["a"] = b"1"
    other.close()
    rows["a"] = b"2"
    assert rows["a"] == b"2"


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


def test_a_slow_answer_is_waited_for(rows: Rows, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows.conn, "_LOOK_S", 0.001)
    other = sqlite3.connect(file, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    looked = threading.Event()
    alive = rows.conn.is_alive

    def watched() -> bool:
        looked.set()
        return bool(alive())

    monkeypatch.setattr(rows.conn, "is_alive", watched)

    def unlock() -> None:
        looked.wait(30)
        other.close()

    unlocking = threading.Thread(target=unlock)
    unlocking.start()
    rows["a"] = b"1"  # waits for the lock, and looks after its thread meanwhile
    unlocking.join()
    assert looked.is_set()
    assert rows["a"] == b"1"


def test_closing_ends_the_thread(file: Path) -> None:
    before = set(threading.enumerate())
    Rows(file).close()
    assert set(threading.enumerate()) <= before
