"""The table of sealed records: what `store.py` has its thread work on. And the nouns of the store.

A row's key is a keyed hash of the record's name, so that no address stands in clear; its value is the record, sealed
under that key (`vault.py`). One row, the check record, opens only with the right key: so a wrong one is told before
anything is written, and after a rotation that was cut off the store sees which of two keys it was left with.

All rows are sealed with one key at any time: `rotate` and `restore` write in one transaction. What it is not: safe for
two threads. Who calls it: `store.py`, and for the nouns whoever works with the store.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from proxy.accounts.keys import KeyPlace, KeyUnusable
from proxy.accounts.rows import NotBytes, Rows, make_file
from proxy.accounts.vault import Damaged, Vault, WrongKey
from proxy.log import Log

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

log = Log("store")


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored under a name. Versions count from 1, and go on counting when a record is deleted and made anew."""

    version: int
    data: dict[str, JSON] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All records at one moment, by name. Versions compare within one `lineage` only: a store and what it came from."""

    lineage: str
    records: Mapping[str, Record] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Restored:
    """Names of records: written, or as they were in the snapshot already, or kept as they were here."""

    written: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    """Newer here than in the snapshot, or of another store; they too are `written` when that was asked for."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """How many records a new key seals now, and what a person has still to do about it; empty if nothing."""

    records: int
    left_to_do: str


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


@dataclass(frozen=True, slots=True)
class _Document:
    """What is sealed in a row. A deletion leaves the version behind, lest an old writer match a record made anew."""

    name: str
    version: int
    data: dict[str, JSON] | None = field(repr=False)

    @property
    def record(self) -> Record | None:
        return None if self.data is None else Record(self.version, self.data)


class SealedTable:
    """The records in a file, used by one thread.

    Every method may raise `StoreError`, and the making, `rotate` and what follows it `KeyUnusable`.
    """

    _CHECK = "check"
    """This row opens only with the right key. It holds the key of the names' hash, which outlives the vault's keys."""

    def __init__(self, file: Path, place: KeyPlace) -> None:
        self._file = file
        self._place = place
        with self._told():
            if not _is_there(file):
                key = place.read(make=True)
                make_file(file, {self._CHECK: Vault(key).seal(self._CHECK, secrets.token_bytes(32))})
            os.close(os.open(file, os.O_RDWR | os.O_NOFOLLOW))  # never once it is open: SQLite's lock would be lost
            self._rows = Rows(file)
            try:
                self._names_key = self._unlock()
                _keep_private(file)
            except BaseException:
                with suppress(sqlite3.Error):
                    self._rows.close()
                raise

    def _unlock(self) -> bytes:
        """The key of the names' hash. The vault's is the current one, or after a rotation that was cut off the next."""
        if not self._rows.intact():
            raise Damaged("not intact")
        sealed: bytes | None = self._rows.get(self._CHECK)
        if sealed is None:
            raise Damaged("no check record")
        self._key = self._place.read(make=False)
        self._vault = Vault(self._key)
        with suppress(WrongKey):
            return self._vault.open(self._CHECK, sealed)
        following = self._place.read_next()
        if following is None:
            raise WrongKey
        self._key, self._vault = following, Vault(following)
        names_key = self._vault.open(self._CHECK, sealed)
        self._promote()
        return names_key

    def _promote(self) -> str:
        """Put the next key, which is in use, in the old one's place; what is left to do if that cannot be done."""
        try:
            self._place.promote()
        except KeyUnusable as unusable:
            log.warning("the new key is in use, but not in its place", remedy=unusable.text)
            return unusable.text
        return ""

    def close(self) -> None:
        with self._told():
            self._rows.close()

    # --- one record

    def load(self, name: str) -> Record | None:
        with self._told():
            return self._document(self._row(name)).record

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> int:
        return self._replace(name, data, expected_version)

    def delete(self, name: str, expected_version: int) -> None:
        self._replace(name, None, expected_version)

    def names(self) -> tuple[str, ...]:
        return tuple(self.snapshot().records)

    def probe(self) -> None:
        """Find out whether the disk takes a write."""
        with self._told():
            self._rows[self._CHECK] = self._rows[self._CHECK]

    # --- all records

    def snapshot(self) -> Snapshot:
        with self._told():
            documents = [self._document(row) for row in self._rows if row != self._CHECK]
            records = {each.name: each.record for each in documents if each.record is not None}
            return Snapshot(self._lineage, dict(sorted(records.items())))

    def restore(self, snapshot: Snapshot, *, replace: bool, rehearse: bool) -> Restored:
        """Write the snapshot's records, all in one transaction; `rehearse` writes nothing, and tells the same.

        A record that is newer here is kept, unless `replace`. In the snapshot of another store nothing can be said to
        be older: what is here and differs is kept, a deletion too.
        """
        with self._told():
            written, same, kept = dict[str, bytes](), list[str](), list[str]()
            names = []
            for name, record in snapshot.records.items():
                row = self._row(name)
                here = self._document(row)
                if here.data == record.data:
                    same.append(name)
                    continue
                if here.version and (snapshot.lineage != self._lineage or here.version >= record.version):
                    kept.append(name)
                    if not replace:
                        continue
                names.append(name)
                written[row] = self._seal(row, name, max(here.version, record.version) + 1, record.data)
            if written and not rehearse:
                self._rows.put_all(written)
            return Restored(tuple(names), tuple(same), tuple(kept))

    def rotate(self) -> Rotated:
        """Seal every record with a new key, which takes the old one's place (`keys.py` has the order and its reasons).

        Raises:
            KeyUnusable, StoreError: nothing is changed, and the old key is good.
        """
        with self._told():
            new_key = self._place.draft()
            if new_key == self._key:  # the last rotation stopped short of this
                self._place.promote()
                new_key = self._place.draft()
            new = Vault(new_key)
            rows = {row: new.seal(row, self._vault.open(row, sealed)) for row, sealed in self._rows.items()}
            self._rows.put_all(rows)
            self._key, self._vault = new_key, new
        left_to_do = self._promote()
        try:
            self._rows.scrub()
        except sqlite3.Error as error:  # the disk is full, perhaps: VACUUM needs as much room again
            log.warning("what the old key sealed may still lie in free parts of the store", reason=str(error))
        return Rotated(len(rows) - 1, left_to_do)

    # --- rows

    @property
    def _lineage(self) -> str:
        """Which store this is, whatever key seals it."""
        return blake2b(self._names_key, digest_size=8, person=b"mailferry store").hexdigest()

    def _replace(self, name: str, data: dict[str, JSON] | None, expected_version: int) -> int:
        with self._told():
            row = self._row(name)
            last = self._document(row)
            found = 0 if last.record is None else last.version
            if found != expected_version:
                raise Superseded(f"version {expected_version} was expected, {found} is there")
            version = last.version + 1
            self._rows[row] = self._seal(row, name, version, data)
            return version

    def _row(self, name: str) -> str:
        return blake2b(name.encode(), key=self._names_key, digest_size=32).hexdigest()

    def _seal(self, row: str, name: str, version: int, data: dict[str, JSON] | None) -> bytes:
        plain = json.dumps({"name": name, "version": version, "data": data}, allow_nan=False)
        return self._vault.seal(row, plain.encode())

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
                f"made with. If it is lost: {_START_ANEW.format(self._file)}"
            ) from None
        except (Damaged, NotBytes):
            raise StoreDamaged(_DAMAGED.format(self._file)) from None
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreDamaged(_DAMAGED.format(self._file)) from None
            raise StoreUnavailable(f"The store {self._file} cannot be used: {error}.") from None
        except OSError as error:
            raise StoreUnavailable(f"The store {self._file} cannot be used: {error.strerror}.") from None


_START_ANEW = (
    "Stop mailferry, move {0}* away, and run `mailferry restore FILE` with your last backup; "
    "without one, every account must sign in again."
)
_DAMAGED = "The store {0} is damaged, or was altered from outside. Nothing in it was changed. " + _START_ANEW


def _is_there(file: Path) -> bool:
    """Whether there is a store. Its log without the file is a part of one: a new file would be mixed with it."""
    if os.path.lexists(file):
        return True
    if os.path.lexists(f"{file}-wal"):
        raise Damaged("a log without its file")
    return False


def _keep_private(file: Path) -> None:
    """See that nobody else may read the file and its log. Raises: OSError."""
    for each in (file, Path(f"{file}-wal")):
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(each.stat().st_mode)
            if mode & 0o077:
                each.chmod(0o600)
                log.warning("others could read the store; now only we can", file=str(each), mode=f"{mode:04o}")
