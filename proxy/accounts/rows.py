"""sqlitedict, mended: a table of byte strings in a file, whose writes are on the disk when they return.

What it is: the one door to sqlitedict 2.1 (FACTS 6), and a cure for what it does wrong. Values are bytes, never its
pickle (CVE-2024-35515); every write is its own commit, because a failed `commit()` of several kills its thread;
`synchronous=FULL`, which it switches off; and a caller is told when that thread dies. What it is not: sealed. Who calls
it: `sealed.py`, from one thread.

Why a power cut loses nothing that was acknowledged. The journal is a WAL: a commit appends its pages to `-wal` and,
at `synchronous=FULL`, syncs that file before it returns; a record that was only half appended has a wrong checksum and
is left out when the file is next opened. A checkpoint syncs `-wal`, writes into the file, syncs the file, and only then
begins `-wal` anew; a cut in between finds the pages in `-wal` still, and does it again. (A rollback journal would need
`synchronous=EXTRA`, as its removal is not synced.) What is left is whether the names are there: a new file is made
under another name, synced, renamed, and its folder synced (`make_file`); for a new `-wal` SQLite syncs the folder with
the first commit. A WAL wants a local disk.

`locking_mode=EXCLUSIVE`: the folder is ours alone, so the file may as well be. Then SQLite keeps the WAL's index in
memory instead of a `-shm` file, and a store on a full disk can still be opened and read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from queue import Empty, Queue

from sqlitedict import SqliteDict, SqliteMultithread

logging.getLogger("sqlitedict").setLevel(logging.CRITICAL + 1)  # every error reaches our caller, and is told there

LOCK_WAIT_S = 5.0  # for somebody who looks into the file from outside, with sqlite3 perhaps
_MAKE = 'CREATE TABLE IF NOT EXISTS "records" (key TEXT PRIMARY KEY, value BLOB)'  # as sqlitedict makes it
_REPLACE = 'REPLACE INTO "records" (key, value) VALUES (?, ?)'


class NotBytes(Exception):
    """A row's value is something that was never written here."""


def make_file(file: Path, rows: Mapping[str, bytes]) -> None:
    """A new file with these rows, mode 0600; it appears under its name whole or not at all.

    Raises:
        OSError, sqlite3.Error: there is none.
    """
    draft = file.with_name(f".{file.name}.draft")
    for leftover in file.parent.glob(f"{draft.name}*"):  # of a start that was cut off
        leftover.unlink()
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _commit(connection, rows, _MAKE)
    os.rename(draft, file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Rows(SqliteDict):  # type: ignore[misc]  # sqlitedict has no types
    """A mapping of keys (str) to values (bytes). Every call may raise `sqlite3.Error`; reading may raise `NotBytes`."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            str(file),
            tablename="records",
            autocommit=True,
            journal_mode="WAL",
            encode=bytes,
            decode=_bytes,
            outer_stack=False,
        )

    def intact(self) -> bool:
        """Whether SQLite finds no fault in the whole file."""
        return bool(self.conn.select_one("PRAGMA quick_check") == ("ok",))

    def put_all(self, rows: Mapping[str, bytes]) -> None:
        """Write all of these, or none: one transaction."""
        _commit(self._own_connection(), rows)

    def scrub(self) -> None:
        """Let nothing stay in the files of what has been written over: neither in free pages nor in the WAL."""
        connection = self._own_connection()
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _own_connection(self) -> sqlite3.Connection:
        """The connection, which sqlitedict's thread leaves alone until our next call of one of its methods.

        That thread commits after every statement, but waits for the next request once a commit is answered.
        """
        self.commit()
        connection = self.conn.connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def _new_conn(self) -> _Worker:
        return _Worker(self.filename, autocommit=self.autocommit, journal_mode=self.journal_mode, outer_stack=False)


def _commit(connection: sqlite3.Connection, rows: Mapping[str, bytes], *before: str) -> None:
    with connection:  # commits; rolls back when something is raised, by the commit too
        connection.execute("BEGIN IMMEDIATE")
        for statement in before:
            connection.execute(statement)
        connection.executemany(_REPLACE, rows.items())


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):  # `bytes()` of a number would be that many zeros
        raise NotBytes
    return value


class _Worker(SqliteMultithread):  # type: ignore[misc]  # sqlitedict has no types
    """sqlitedict's thread: it syncs, and when it dies its caller is told instead of waiting for ever."""

    _LOOK_S = 1.0  # an answer wakes the caller at once; this is only how soon a death is noticed
    connection: sqlite3.Connection | None = None

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Cursor]:
        try:
            self.connection = connection = sqlite3.connect(
                self.filename, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before the first access, or there is a -shm file
            connection.execute(f"PRAGMA journal_mode={self.journal_mode}")
            connection.execute("PRAGMA synchronous=FULL")
            return connection, connection.cursor()
        except sqlite3.Error:
            self.exception = sys.exc_info()  # before the lock is given back: then our caller is told at once
            raise

    def run(self) -> None:
        try:
            super().run()
        except sqlite3.Error:
            self.exception = sys.exc_info()
            if self.connection is not None:
                self.connection.close()  # it holds the file, even if it could not be opened wholly

    def select(self, req: str, arg: tuple[str, ...] | None = None) -> Iterator[tuple[object, ...]]:
        answers: Queue[object] = Queue()
        self.execute(req, arg, answers)
        while True:
            try:
                answer = answers.get(timeout=self._LOOK_S)
            except Empty:
                if self.is_alive():
                    continue
                answer = None
            self.check_raise_error()
            match answer:
                case tuple():
                    yield answer
                case None:
                    raise sqlite3.OperationalError("its thread has ended")
                case _:
                    return
