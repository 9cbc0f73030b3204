"""The store: sealed records by name, each with a version; and the lock on the folder they lie in.

A save is a compare-and-swap: it names the version it read, so that a slow writer never undoes a newer truth. Versions
only grow, also over a deletion. What an acknowledged save wrote survives SIGKILL and a power cut. What it is not: it
knows no tokens, only names and JSON. Who calls it: the token modules through the `TokenStore` interface; the daemon
opens and closes it. How the rows reach the disk is told in `rows.py`.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from proxy.accounts.rows import NotBytes, Rows
from proxy.accounts.vault import Damaged, Vault, WrongKey

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored under a name. Versions count from 1, and go on counting when a record is deleted and made anew."""

    version: int
    data: dict[str, JSON] = field(repr=False)


class StoreError(Exception):
    """The store cannot do what it was asked. `text` tells a person what is wrong and what to do; it holds no secret."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class StoreUnavailable(StoreError):
    """It cannot be reached now: closed, locked, disk full, no permission. Nothing is lost; later may go well."""


class StoreDamaged(StoreError):
    """What lies there is not what was written: the file is corrupt, or a record was altered."""


class StoreKeyWrong(StoreError):
    """The store was made with another key. Nothing was written."""


class Superseded(Exception):
    """The record is not at the version that the caller expected: somebody else wrote it. Load it again."""


class TokenStore(Protocol):
    """Records by name. Every Deferred may also fail with a `StoreError`."""

    def load(self, name: str) -> Deferred[Record | None]:
        """The record of this name, or None. The caller may keep and change its data."""
        ...

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> Deferred[int]:
        """Replace the record at `expected_version` (0: it must not exist) and give its new version, once it is safe.

        Raises:
            Superseded: the record is at another version; nothing was written.
        """
        ...

    def delete(self, name: str, expected_version: int) -> Deferred[None]:
        """Remove the record at `expected_version`.

        Raises:
            Superseded: the record is at another version, or gone; nothing was removed.
        """
        ...

    def names(self) -> Deferred[tuple[str, ...]]:
        """The names of all records, sorted."""
        ...


class StateFolderHeld(Exception):
    """Another process works in the state folder; its process id, if it could be read."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid


class StateFolder:
    """The state folder, held by this process until `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others in. The kernel does the same when the process ends, however it ends."""
        os.close(self._descriptor)


def lock_state_folder(path: Path) -> StateFolder:
    """Make the folder (0700) if it is absent, and hold it: one daemon, or one command, at a time.

    Raises:
        StateFolderHeld: another process holds it.
        StoreUnavailable: it cannot be made or used, or others could write in it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = path.stat()
        if facts.st_uid != os.geteuid():
            raise StoreUnavailable(f"The state folder {path} belongs to another user. Run mailferry as that user.")
        if facts.st_mode & 0o022:
            raise StoreUnavailable(f"Other users may write in the state folder {path}. Run: chmod 700 {path}")
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"The state folder {path} cannot be used: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.read(descriptor, 32).strip()
        os.close(descriptor)
        raise StateFolderHeld(int(written) if written.isdigit() else None) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return StateFolder(path, descriptor)


class SqliteStore:
    """`TokenStore` in `tokens.sqlite` in a held state folder.

    All work is done by one thread that the store owns, in the order of the calls: never in the reactor's thread,
    never in the reactor's pool. A store is opened once; calls before that or after `close` fail as `StoreUnavailable`.
    """

    def __init__(self, folder: StateFolder, vault: Vault, reactor: IReactorFromThreads) -> None:
        self._file = folder.path / "tokens.sqlite"
        self._vault = vault
        self._reactor = reactor
        self._table: _SealedTable | None = None
        self._pool = ThreadPool(minthreads=0, maxthreads=1, name="store")
        # A command that fails before `close` must end nevertheless. Every commit is safe, so its thread may be cut off.
        self._pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def open(self) -> Deferred[None]:
        """Open the file, or make it.

        Raises:
            StoreKeyWrong, StoreDamaged, StoreUnavailable: no record was changed, and the thread has ended.
        """

        def serve(table: _SealedTable) -> None:
            self._table = table

        self._pool.start()
        opened = deferToThreadPool(self._reactor, self._pool, _SealedTable, self._file, self._vault)
        return opened.addCallbacks(serve, self._end)

    def close(self) -> Deferred[None]:
        """Finish the calls under way, close the file and end the thread. Closing twice does no harm."""
        if self._table is None:
            return succeed(None)
        closed = self._do(_SealedTable.close)
        self._table = None
        return closed.addBoth(self._end)

    def load(self, name: str) -> Deferred[Record | None]:
        return self._do(_SealedTable.load, name)

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> Deferred[int]:
        # A copy, because the caller may change its data before the thread comes to it.
        return self._do(_SealedTable.save, name, copy.deepcopy(data), expected_version)

    def delete(self, name: str, expected_version: int) -> Deferred[None]:
        return self._do(_SealedTable.delete, name, expected_version)

    def names(self) -> Deferred[tuple[str, ...]]:
        return self._do(_SealedTable.names)

    def _do(
        self, work: Callable[Concatenate[_SealedTable, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        if self._table is None:  # a stopped pool would swallow the work, and nobody would ever be answered
            return fail(StoreUnavailable("The store is not open; mailferry is starting or stopping."))
        return deferToThreadPool(self._reactor, self._pool, work, self._table, *args, **kwargs)

    def _end(self, result: _T) -> _T:
        self._pool.stop()
        return result


@dataclass(frozen=True, slots=True)
class _Document:
    """What is sealed in a row. A deletion leaves the version behind, lest an old writer match a record made anew."""

    name: str
    version: int
    data: dict[str, JSON] | None = field(repr=False)

    @property
    def record(self) -> Record | None:
        return None if self.data is None else Record(self.version, self.data)


class _SealedTable:
    """The table of sealed rows, used by one thread. A row's key is a keyed hash, so that no address stands in clear."""

    _CHECK = "check"
    """This row opens only with the right key. It holds the key of the names' hash, which outlives the vault's keys."""

    def __init__(self, file: Path, vault: Vault) -> None:
        self._file = file
        self._vault = vault
        with self._told():
            # SQLite would make it with the umask's mode; its -wal and -shm files take this one's.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            os.fchmod(descriptor, 0o600)
            os.close(descriptor)
            self._rows = Rows(file)
            try:
                self._names_key = self._check()
            except BaseException:
                with suppress(sqlite3.Error):
                    self._rows.close()
                raise

    def _check(self) -> bytes:
        """The key of the names' hash, made in a new store."""
        if not self._rows.intact():
            raise Damaged("not intact")
        sealed: bytes | None = self._rows.get(self._CHECK)
        if sealed is not None:
            return self._vault.open(self._CHECK, sealed)
        if self._rows:
            raise Damaged("rows without a check record")
        names_key = secrets.token_bytes(32)
        self._rows[self._CHECK] = self._vault.seal(self._CHECK, names_key)
        return names_key

    def close(self) -> None:
        with self._told():
            self._rows.close()

    def load(self, name: str) -> Record | None:
        with self._told():
            return self._document(self._row(name)).record

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> int:
        return self._replace(name, data, expected_version)

    def delete(self, name: str, expected_version: int) -> None:
        self._replace(name, None, expected_version)

    def names(self) -> tuple[str, ...]:
        with self._told():
            documents = [self._document(row) for row in self._rows if row != self._CHECK]
            return tuple(sorted(document.name for document in documents if document.record is not None))

    def _replace(self, name: str, data: dict[str, JSON] | None, expected_version: int) -> int:
        with self._told():
            row = self._row(name)
            last = self._document(row)
            found = 0 if last.record is None else last.version
            if found != expected_version:
                raise Superseded(f"version {expected_version} was expected, {found} is there")
            version = last.version + 1
            plain = json.dumps({"name": name, "version": version, "data": data}, allow_nan=False)
            self._rows[row] = self._vault.seal(row, plain.encode())
            return version

    def _row(self, name: str) -> str:
        return blake2b(name.encode(), key=self._names_key, digest_size=32).hexdigest()

    def _document(self, row: str) -> _Document:
        sealed: bytes | None = self._rows.get(row)
        if sealed is None:
            return _Document("", 0, None)
        match json.loads(self._vault.open(row, sealed)):
            case {"name": str(name), "version": int(version), "data": dict() | None as data}:
                return _Document(name, version, data)
            case _:
                raise Damaged("not a record")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever goes wrong inside is told as a `StoreError`."""
        try:
            yield
        except WrongKey:
            raise StoreKeyWrong(
                f"The stored sign-ins in {self._file} were sealed with another key. Put back the key file they were "
                "made with. If it is lost, move the store away; every account must then sign in again."
            ) from None
        except (Damaged, NotBytes):
            raise StoreDamaged(_DAMAGED.format(self._file)) from None
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreDamaged(_DAMAGED.format(self._file)) from None
            raise StoreUnavailable(f"The store {self._file} cannot be used: {error}.") from None
        except OSError as error:
            raise StoreUnavailable(f"The store {self._file} cannot be used: {error.strerror}.") from None


_DAMAGED = (
    "The store {} is damaged, or was altered from outside. Restore it from a backup, or move it away; "
    "every account must then sign in again."
)
