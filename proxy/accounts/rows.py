"""sqlitedict, mended: a table of byte strings in a file, whose writes are on the disk when they return.

What it is: the one door to sqlitedict 2.1 (FACTS 6), and a cure for what it does wrong. Values are bytes, never its
pickle (CVE-2024-35515); every write is its own commit, because a failed `commit()` of several kills its thread;
`synchronous=FULL`, which it switches off; and a caller is told when that thread dies. The journal is a WAL: a commit
is one fsync and survives a power cut, whereas a rollback journal needs `synchronous=EXTRA` for that, as its removal is
not synced. A WAL wants a local disk. What it is not: sealed. Who calls it: `store.py`, from one thread.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

from sqlitedict import SqliteDict, SqliteMultithread

logging.getLogger("sqlitedict").setLevel(logging.CRITICAL + 1)  # every error reaches our caller, and is told there


class NotBytes(Exception):
    """A row's value is something that was never written here."""


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

    def _new_conn(self) -> _Worker:
        return _Worker(self.filename, autocommit=self.autocommit, journal_mode=self.journal_mode, outer_stack=False)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):  # `bytes()` of a number would be that many zeros
        raise NotBytes
    return value


class _Worker(SqliteMultithread):  # type: ignore[misc]  # sqlitedict has no types
    """sqlitedict's thread: it syncs, and when it dies its caller is told instead of waiting for ever."""

    _LOOK_S = 1.0  # an answer wakes the caller at once; this is only how soon a death is noticed

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Cursor]:
        connection, cursor = super()._connect()
        cursor.execute("PRAGMA synchronous=FULL")
        return connection, cursor

    def run(self) -> None:
        try:
            super().run()
        except sqlite3.Error:
            self.exception = sys.exc_info()

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
