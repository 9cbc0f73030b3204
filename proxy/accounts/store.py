"""The store: sealed records by name, each with a version; and the lock on the folder they lie in.

A save is a compare-and-swap: it names the version it read, so that a slow writer never undoes a newer truth. Versions
only grow, also over a deletion. What an acknowledged save wrote survives SIGKILL and a power cut. When the disk takes
no write (full, read-only), nothing that is there is lost, reading goes on, and `trouble` says so until a write comes
through; what could not be saved, its owner keeps in memory (`grants.py`). What it is not: it knows no tokens, only
names and JSON. Who calls it: the token modules through the `TokenStore` interface; the daemon opens and closes it. What
is done to the records stands in `sealed.py`, how rows reach the disk in `rows.py`.
"""

from __future__ import annotations

import copy
import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from proxy.accounts.keys import KeyPlace
from proxy.accounts.rows import sync_folder
from proxy.accounts.sealed import (
    JSON,
    Record,
    Restored,
    Rotated,
    SealedTable,
    Snapshot,
    StoreDamaged,
    StoreError,
    StoreKeyWrong,
    StoreUnavailable,
    Superseded,
)
from proxy.log import Log
from proxy.metrics import Metrics

__all__ = [
    "JSON",
    "Record",
    "SqliteStore",
    "StateFolder",
    "StateFolderHeld",
    "StoreDamaged",
    "StoreError",
    "StoreKeyWrong",
    "StoreTrouble",
    "StoreUnavailable",
    "Superseded",
    "TokenStore",
    "lock_state_folder",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

log = Log("store")


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
        _make_private(path)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"The state folder {path} cannot be used: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.read(descriptor, 32).strip()
        os.close(descriptor)
        raise StateFolderHeld(int(written) if written.isdigit() else None) from None
    with suppress(OSError):  # a full disk: the lock holds without our number
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return StateFolder(path, descriptor)


def _make_private(folder: Path) -> None:
    """See that there is this folder, and that it is ours alone. Raises: OSError, StoreUnavailable."""
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
    facts = folder.stat()
    if facts.st_uid != os.geteuid():
        raise StoreUnavailable(f"The state folder {folder} belongs to another user. Run mailferry as that user.")
    if facts.st_mode & 0o022:  # what lies there may be somebody else's: for a person to judge
        raise StoreUnavailable(f"Other users may write in the state folder {folder}. Run: chmod 700 {folder}")
    if facts.st_mode & 0o055:
        with suppress(OSError):  # what lies in it is private by itself
            folder.chmod(0o700)
            log.warning("others could look into the state folder; now only we can", folder=str(folder))


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """The store takes no write; since when (seconds since 1970), and why, for a person."""

    text: str
    since_s: float


class SqliteStore:
    """`TokenStore` in `tokens.sqlite` in a held state folder.

    All work is done by one thread that the store owns, in the order of the calls: never in the reactor's thread,
    never in the reactor's pool. A store is opened once; calls before that or after `close` fail as `StoreUnavailable`.
    """

    def __init__(
        self,
        folder: StateFolder,
        place: KeyPlace,
        reactor: IReactorFromThreads,
        *,
        now: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self.trouble: StoreTrouble | None = None
        """Why the last write failed; None when it did not."""
        self._file = folder.path / "tokens.sqlite"
        self._place = place
        self._reactor = reactor
        self._now = now
        self._table: SealedTable | None = None
        self._pool = ThreadPool(minthreads=0, maxthreads=1, name="store")
        # A command that fails before `close` must end nevertheless. Every commit is safe, so its thread may be cut off.
        self._pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]

    def open(self) -> Deferred[None]:
        """Open the file, or make it, and its key.

        Raises:
            StoreKeyWrong, StoreDamaged, StoreUnavailable, KeyUnusable: no record was changed, and the thread has ended.
        """

        def serve(table: SealedTable) -> None:
            self._table = table

        self._pool.start()
        opened = deferToThreadPool(self._reactor, self._pool, SealedTable, self._file, self._place)
        return opened.addCallbacks(serve, self._end)

    def close(self) -> Deferred[None]:
        """Finish the calls under way, close the file and end the thread. Closing twice does no harm."""
        if self._table is None:
            return succeed(None)
        closed = self._do(SealedTable.close)
        self._table = None
        return closed.addBoth(self._end)

    def load(self, name: str) -> Deferred[Record | None]:
        return self._watch_read(self._do(SealedTable.load, name))

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> Deferred[int]:
        # A copy, because the caller may change its data before the thread comes to it.
        return self._watch(self._do(SealedTable.save, name, copy.deepcopy(data), expected_version))

    def delete(self, name: str, expected_version: int) -> Deferred[None]:
        return self._watch(self._do(SealedTable.delete, name, expected_version))

    def names(self) -> Deferred[tuple[str, ...]]:
        return self._watch_read(self._do(SealedTable.names))

    def probe(self) -> Deferred[None]:
        """Find out whether the disk takes a write, so that `trouble` is true now. Raises: StoreError: it does not."""
        return self._watch(self._do(SealedTable.probe))

    def rotate(self) -> Deferred[Rotated]:
        """Seal every record with a new key (`SealedTable.rotate`)."""
        return self._watch(self._do(SealedTable.rotate))

    def export(self, work: Callable[[Snapshot], _T]) -> Deferred[_T]:
        """What `work` makes of all records of one moment, in the store's thread."""
        return self._watch_read(self._do(lambda table: work(table.snapshot())))

    def restore(self, read: Callable[[], Snapshot], *, replace: bool, rehearse: bool) -> Deferred[Restored]:
        """Write what `read` gives, in the store's thread (`SealedTable.restore`). Raises: what `read` raises, too."""
        return self._watch(self._do(lambda table: table.restore(read(), replace=replace, rehearse=rehearse)))

    def _do(
        self, work: Callable[Concatenate[SealedTable, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        if self._table is None:  # a stopped pool would swallow the work, and nobody would ever be answered
            return fail(StoreUnavailable("The store is not open; mailferry is starting or stopping."))
        return deferToThreadPool(self._reactor, self._pool, work, self._table, *args, **kwargs)

    def _watch_read(self, read: Deferred[_T]) -> Deferred[_T]:
        return read.addErrback(self._read_ill)

    def _read_ill(self, failure: Failure) -> Failure:
        if isinstance(failure.value, StoreError):
            self._metrics.store_failed("read")
        return failure

    def _watch(self, written: Deferred[_T]) -> Deferred[_T]:
        """Keep in mind how a write went."""
        return written.addCallbacks(self._went_well, self._went_ill)

    def _went_well(self, result: _T) -> _T:
        if self.trouble is not None:
            log.info("the store takes writes again", after_s=int(self._now() - self.trouble.since_s))
            self.trouble = None
        return result

    def _went_ill(self, failure: Failure) -> Failure:
        if isinstance(failure.value, StoreError) and self._table is not None:
            if self.trouble is None:
                log.error("the store takes no write; sign-ins live on in memory", reason=failure.value.text)
            since_s = self._now() if self.trouble is None else self.trouble.since_s
            self.trouble = StoreTrouble(failure.value.text, since_s)
            self._metrics.store_failed("write")
        return failure

    def _end(self, result: _T) -> _T:
        self._pool.stop()
        return result
