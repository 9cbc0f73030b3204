"""The store: no acknowledged record is lost, none is overwritten unseen, none is loaded that was not sealed by us."""

from __future__ import annotations

import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import TypeVar, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.accounts.store import (
    JSON,
    Record,
    SqliteStore,
    StateFolderHeld,
    StoreDamaged,
    StoreError,
    StoreKeyWrong,
    StoreTrouble,
    StoreUnavailable,
    Superseded,
    lock_state_folder,
)
from proxy.accounts.vault import Vault
from tests.accounts.key_places import KEY, HeldKey

T = TypeVar("T")

ALICE = "work/alice@contoso.com"
ANSWER_LIMIT_S = 30.0  # a test that waits longer has hung


@implementer(IReactorFromThreads)
class PumpedReactor:
    """The one thing that the store asks of a reactor, done when a test pumps it, in the test's own thread."""

    def __init__(self) -> None:
        self._calls: Queue[Callable[[], object]] = Queue()

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def wait(self, deferred: Deferred[T]) -> T:
        """Its result, or its error raised."""
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        while not results:
            self._calls.get(timeout=ANSWER_LIMIT_S)()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


class Bench:
    """A state folder, and a store in it that answers at once."""

    def __init__(self, folder: Path, key: bytes = KEY) -> None:
        self.file = folder / "tokens.sqlite"
        self.folder = lock_state_folder(folder)
        self.reactor = PumpedReactor()
        self.store = SqliteStore(self.folder, HeldKey(key), self.reactor)

    def open(self) -> Bench:
        self.reactor.wait(self.store.open())
        return self

    def close(self) -> None:
        self.reactor.wait(self.store.close())
        self.folder.release()

    def load(self, name: str) -> Record | None:
        return self.reactor.wait(self.store.load(name))

    def save(self, name: str, data: dict[str, JSON], expected_version: int) -> int:
        return self.reactor.wait(self.store.save(name, data, expected_version))

    def delete(self, name: str, expected_version: int) -> None:
        self.reactor.wait(self.store.delete(name, expected_version))

    def names(self) -> tuple[str, ...]:
        return self.reactor.wait(self.store.names())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder).open()
    yield bench
    bench.close()


def reopened(folder: Path, key: bytes = KEY) -> Bench:
    return Bench(folder, key).open()


def loaded(folder: Path) -> Record | None:
    """What a new store finds of Alice."""
    bench = reopened(folder)
    record = bench.load(ALICE)
    bench.close()
    return record


def sql(folder: Path, statement: str, *arguments: object) -> list[tuple[object, ...]]:
    """Straight into the file, past the store."""
    connection = sqlite3.connect(folder / "tokens.sqlite")
    try:
        with connection:
            return connection.execute(statement, arguments).fetchall()
    finally:
        connection.close()


# Records and versions


def test_a_record_comes_back_as_it_was_saved(bench: Bench) -> None:
    data: dict[str, JSON] = {"text": "ä\N{GRINNING FACE}", "list": [1, 2.5, None, True], "nested": {"a": {}}}
    assert bench.save(ALICE, data, 0) == 1
    assert bench.load(ALICE) == Record(1, data)


def test_what_is_not_there_is_none(bench: Bench) -> None:
    assert bench.load(ALICE) is None


def test_versions_count_up(bench: Bench) -> None:
    assert [bench.save(ALICE, {"n": n}, n) for n in range(3)] == [1, 2, 3]
    assert bench.load(ALICE) == Record(3, {"n": 2})


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_stale_writer_is_superseded_and_writes_nothing(bench: Bench, expected: int) -> None:
    bench.save(ALICE, {"n": 1}, 0)
    bench.save(ALICE, {"n": 2}, 1)
    with pytest.raises(Superseded):
        bench.save(ALICE, {"n": 99}, expected)
    with pytest.raises(Superseded):
        bench.delete(ALICE, expected)
    assert bench.load(ALICE) == Record(2, {"n": 2})


def test_of_many_writers_at_once_one_wins(bench: Bench) -> None:
    outcomes: list[int | Failure] = []
    writers = [bench.store.save(ALICE, {"writer": n}, 0).addBoth(outcomes.append) for n in range(10)]
    bench.reactor.wait(writers[-1])
    assert outcomes[0] == 1
    assert all(isinstance(outcome, Failure) and outcome.check(Superseded) for outcome in outcomes[1:])
    assert bench.load(ALICE) == Record(1, {"writer": 0})


def test_a_record_that_does_not_exist_has_no_version_to_replace(bench: Bench) -> None:
    with pytest.raises(Superseded):
        bench.save(ALICE, {}, 1)
    assert bench.names() == ()


def test_a_deleted_record_is_gone(bench: Bench) -> None:
    bench.save(ALICE, {"n": 1}, 0)
    bench.delete(ALICE, 1)
    assert bench.load(ALICE) is None
    assert bench.names() == ()
    with pytest.raises(Superseded):
        bench.delete(ALICE, 1)


def test_a_record_made_anew_is_not_mistaken_for_the_deleted_one(bench: Bench) -> None:
    old = bench.save(ALICE, {"grant": "old"}, 0)
    bench.delete(ALICE, old)
    new = bench.save(ALICE, {"grant": "new"}, 0)
    with pytest.raises(Superseded):
        bench.save(ALICE, {"grant": "old, refreshed"}, old)
    assert bench.load(ALICE) == Record(new, {"grant": "new"})


def test_names_are_those_that_were_saved(bench: Bench) -> None:
    for name in ("work/bob", ALICE, "check"):
        bench.save(name, {}, 0)
    assert bench.names() == ("check", ALICE, "work/bob")


def test_data_changed_after_the_call_is_not_what_is_saved(bench: Bench) -> None:
    data: dict[str, JSON] = {"list": [1]}
    saved = bench.store.save(ALICE, data, 0)
    cast("list[JSON]", data["list"]).append(2)
    bench.reactor.wait(saved)
    assert bench.load(ALICE) == Record(1, {"list": [1]})


def test_all_is_there_after_a_restart(folder: Path) -> None:
    first = reopened(folder)
    first.save(ALICE, {"n": 1}, 0)
    first.close()
    second = reopened(folder)
    assert second.load(ALICE) == Record(1, {"n": 1})
    assert second.names() == (ALICE,)
    second.close()


# At rest


def test_no_name_and_no_value_stands_in_clear(folder: Path) -> None:
    bench = reopened(folder)
    bench.save(ALICE, {"refresh_token": "0.secret-token"}, 0)
    files = [file.read_bytes() for file in folder.iterdir()]  # the write-ahead log too
    bench.close()
    files += [file.read_bytes() for file in folder.iterdir()]
    for clear in (b"alice", b"contoso", b"secret-token", b"refresh_token"):
        assert not any(clear in content for content in files)


def test_no_secret_is_printed() -> None:
    assert "secret" not in repr(Record(1, {"refresh_token": "secret"}))


def test_the_folder_and_its_files_are_ours_alone_whatever_the_umask(folder: Path) -> None:
    mask = os.umask(0)
    try:
        bench = reopened(folder)
        bench.save(ALICE, {}, 0)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        bench.close()
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(("lock", "tokens.sqlite", "tokens.sqlite-wal"), 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_with_too_wide_a_mode_is_narrowed(folder: Path) -> None:
    reopened(folder).close()
    (folder / "tokens.sqlite").chmod(0o644)
    reopened(folder).close()
    assert stat.S_IMODE((folder / "tokens.sqlite").stat().st_mode) == 0o600


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.mkdir, (self._mark,)


@pytest.mark.parametrize("rows", ["key = 'check'", "key != 'check'"])
def test_a_pickle_is_refused_and_its_payload_does_not_run(folder: Path, tmp_path: Path, rows: str) -> None:
    mark = tmp_path / "payload-has-run"
    payload = pickle.dumps(Payload(mark))
    with_alice(folder)
    sql(folder, f"UPDATE records SET value = ? WHERE {rows}", payload)
    assert isinstance(trouble(folder), StoreDamaged)
    assert not mark.exists()
    pickle.loads(payload)  # it was a live one
    assert mark.exists()


# What lies there is wrong


def with_alice(folder: Path, name: str = ALICE) -> None:
    """A closed store with a record in it."""
    bench = reopened(folder)
    bench.save(name, {"n": 1}, 0)
    bench.close()


def trouble(folder: Path, key: bytes = KEY) -> StoreError:
    """What opening the store and loading Alice says."""
    bench = Bench(folder, key)
    try:
        with pytest.raises(StoreError) as told:
            bench.open().load(ALICE)
        return told.value
    finally:
        bench.close()


def test_a_wrong_key_is_told_and_overwrites_nothing(folder: Path) -> None:
    with_alice(folder)
    before = sql(folder, "SELECT * FROM records")
    told = trouble(folder, key=bytes(32))
    assert isinstance(told, StoreKeyWrong)
    assert "Put back the key file" in told.text
    assert sql(folder, "SELECT * FROM records") == before
    assert loaded(folder) == Record(1, {"n": 1})


def test_rows_without_a_check_record_are_damage_not_a_new_store(folder: Path) -> None:
    with_alice(folder)
    sql(folder, "DELETE FROM records WHERE key = 'check'")
    assert isinstance(trouble(folder), StoreDamaged)
    assert len(sql(folder, "SELECT * FROM records")) == 1


def test_a_row_put_in_anothers_place_is_not_loaded(folder: Path) -> None:
    bench = reopened(folder)
    bench.save(ALICE, {"whose": "alice"}, 0)
    bench.close()
    [(alices_row,)] = sql(folder, "SELECT key FROM records WHERE key != 'check'")
    bench = reopened(folder)
    bench.save("work/mallory", {"whose": "mallory"}, 0)
    bench.close()
    sql(folder, "DELETE FROM records WHERE key = ?", alices_row)
    sql(folder, "UPDATE records SET key = ? WHERE key != 'check'", alices_row)
    assert isinstance(trouble(folder), StoreDamaged)


@pytest.mark.parametrize("value", ["text", 10**12, 1.5, None, b"", b"\x01short"])
def test_a_value_that_is_no_sealed_blob_is_damage(folder: Path, value: object) -> None:
    with_alice(folder)
    sql(folder, "UPDATE records SET value = ? WHERE key != 'check'", value)
    assert isinstance(trouble(folder), StoreDamaged)


def test_a_sealed_value_that_is_no_record_is_damage(folder: Path) -> None:
    with_alice(folder)
    [(row,)] = sql(folder, "SELECT key FROM records WHERE key != 'check'")
    sealed = Vault(KEY).seal(str(row), b"[]")
    sql(folder, "UPDATE records SET value = ? WHERE key = ?", sealed, row)
    assert isinstance(trouble(folder), StoreDamaged)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_is_no_database_is_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock_state_folder(folder).release()
    (folder / "tokens.sqlite").write_bytes(b"This is not a database. " * 100)
    told = trouble(folder)
    assert isinstance(told, StoreDamaged)
    assert str(folder / "tokens.sqlite") in told.text
    assert capfd.readouterr() == ("", "")  # no traceback of sqlitedict's thread


@pytest.mark.parametrize(("offset", "octets"), [(4096, b"\xff" * 4096), (36, b"\0\0\0\5")], ids=["page", "free list"])
def test_a_corrupt_file_is_told_at_the_opening(folder: Path, offset: int, octets: bytes) -> None:
    with_alice(folder)
    with (folder / "tokens.sqlite").open("r+b") as file:
        file.seek(offset)
        file.write(octets)
    assert isinstance(trouble(folder), StoreDamaged)


def test_a_folder_that_is_gone_is_told(folder: Path) -> None:
    bench = Bench(folder)
    (folder / "lock").unlink()
    folder.rmdir()
    with pytest.raises(StoreUnavailable, match="No such file or directory"):
        bench.open()
    bench.close()


# Threads, and nothing that hangs


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_all_work_is_done_in_one_thread_that_ends_with_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, used = threads(), set()
    seal = Vault.seal

    def watched(vault: Vault, record: str, plain: bytes) -> bytes:
        used.add(threading.current_thread())
        return seal(vault, record, plain)

    monkeypatch.setattr(Vault, "seal", watched)
    bench = reopened(folder)
    for version in range(5):
        bench.save(ALICE, {}, version)
    assert [thread.name for thread in used] == ["PoolThread-store-0"]
    bench.close()
    assert threads() <= before


def test_a_failed_opening_leaves_no_thread(folder: Path) -> None:
    with_alice(folder)
    before = threads()
    trouble(folder, key=bytes(32))
    assert threads() <= before


def test_calls_before_the_opening_and_after_the_close_are_answered(folder: Path) -> None:
    bench = Bench(folder)
    with pytest.raises(StoreUnavailable):
        bench.load(ALICE)
    bench.open()
    bench.close()
    with pytest.raises(StoreUnavailable):
        bench.save(ALICE, {}, 0)
    bench.reactor.wait(bench.store.close())  # twice does no harm


def test_a_save_under_way_is_finished_before_the_close(folder: Path) -> None:
    bench = reopened(folder)
    saved: list[object] = []
    bench.store.save(ALICE, {"n": 1}, 0).addBoth(saved.append)
    bench.close()
    assert saved == [1]
    assert loaded(folder) == Record(1, {"n": 1})


def test_a_file_that_somebody_else_holds_is_unavailable_and_later_works_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_alice(folder)
    monkeypatch.setattr("proxy.accounts.rows.LOCK_WAIT_S", 0.01)
    other = sqlite3.connect(folder / "tokens.sqlite")
    other.execute("BEGIN IMMEDIATE")
    told = trouble(folder)
    assert isinstance(told, StoreUnavailable)
    assert "database is locked" in told.text
    other.close()
    assert loaded(folder) == Record(1, {"n": 1})


# A disk that takes no write


def fill(bench: Bench, pages: int = 1) -> None:
    """The file may have no more pages than these, or than it has."""
    table = bench.store._table
    assert table is not None
    table._rows.conn.select_one(f"PRAGMA max_page_count = {pages}")


def said(bench: Bench) -> StoreTrouble | None:
    """Asked anew each time."""
    return bench.store.trouble


def test_a_full_disk_is_said_until_a_write_comes_through(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mailferry")
    clock = iter(range(100, 200, 10))
    bench = Bench(folder)
    bench.store._now = lambda: float(next(clock))
    bench.open()
    bench.save(ALICE, {"n": 1}, 0)
    assert said(bench) is None
    fill(bench)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            bench.save(ALICE, {"text": "x" * 10_000}, 1)
    told = said(bench)
    assert told is not None
    assert "database or disk is full" in told.text
    assert told.since_s == 100.0, "since the first failure"
    assert bench.load(ALICE) == Record(1, {"n": 1}), "what is there is read as ever"
    fill(bench, pages=10_000)
    bench.save(ALICE, {"text": "x" * 10_000}, 1)
    assert said(bench) is None
    bench.close()
    assert [record.getMessage().split("  ")[0] for record in caplog.records if record.name == "mailferry.store"] == [
        "the store takes no write; sign-ins live on in memory",
        "the store takes writes again",
    ]


def test_a_probe_finds_out_without_changing_anything(bench: Bench) -> None:
    bench.save(ALICE, {"n": 1}, 0)
    bench.reactor.wait(bench.store.probe())
    table = bench.store._table
    assert table is not None
    table._rows.conn.select_one("PRAGMA query_only = 1")
    with pytest.raises(StoreUnavailable, match="readonly"):
        bench.reactor.wait(bench.store.probe())
    assert said(bench) is not None
    table._rows.conn.select_one("PRAGMA query_only = 0")
    bench.reactor.wait(bench.store.probe())
    assert said(bench) is None
    assert bench.load(ALICE) == Record(1, {"n": 1})


def test_a_writer_that_came_too_late_is_no_trouble(bench: Bench) -> None:
    with pytest.raises(Superseded):
        bench.save(ALICE, {}, 7)
    assert said(bench) is None


# The state folder


def test_a_held_folder_names_its_holder_until_it_is_released(folder: Path) -> None:
    held = lock_state_folder(folder)
    with pytest.raises(StateFolderHeld) as refused:
        lock_state_folder(folder)
    assert refused.value.pid == os.getpid()
    held.release()
    lock_state_folder(folder).release()


def test_a_longer_process_id_of_an_earlier_holder_does_not_shine_through(folder: Path) -> None:
    lock_state_folder(folder).release()
    (folder / "lock").write_text("99999999999999\n")
    held = lock_state_folder(folder)
    assert (folder / "lock").read_text() == f"{os.getpid()}\n"
    held.release()


def test_a_holder_that_has_not_yet_written_its_id_holds_all_the_same(folder: Path) -> None:
    held = lock_state_folder(folder)
    os.truncate(folder / "lock", 0)
    with pytest.raises(StateFolderHeld) as refused:
        lock_state_folder(folder)
    assert refused.value.pid is None
    held.release()


def test_a_folder_in_which_others_may_write_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(StoreUnavailable, match=f"Run: chmod 700 {folder}"):
        lock_state_folder(folder)


def test_a_folder_that_others_may_look_into_is_closed_to_them(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    lock_state_folder(folder).release()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_lock_holds_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    held = lock_state_folder(folder)
    with pytest.raises(StateFolderHeld):
        lock_state_folder(folder)
    held.release()


def test_another_users_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(StoreUnavailable, match="belongs to another user"):
        lock_state_folder(folder)


def test_a_lock_that_points_elsewhere_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "precious").write_text("precious")
    (folder / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreUnavailable):
        lock_state_folder(folder)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        lock_state_folder(tmp_path / "file" / "state")


# SIGKILL

KILLS = 8
CHILD = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def write_until_killed(folder: Path) -> None:
    """What the child does: say the version that is there, then save the next ones and say each once it is safe."""
    bench = reopened(folder)
    record = bench.load(ALICE)
    version = record.version if record else 0
    assert record is None or record.data == {"version": version, "padding": "x" * 5_000}
    while True:
        print(version, flush=True)
        version = bench.save(ALICE, {"version": version + 1, "padding": "x" * 5_000}, version)


def test_sigkill_at_any_moment_loses_no_acknowledged_record(folder: Path) -> None:
    acknowledged = 0
    for kill in range(KILLS):
        with subprocess.Popen(
            [sys.executable, __file__, folder], stdout=subprocess.PIPE, env=CHILD, text=True
        ) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(1 + kill * 7)]
            child.kill()
            said += child.stdout.readlines()
        found, *saved = [int(line) for line in said if line.endswith("\n")]
        assert acknowledged <= found <= acknowledged + 1  # the save under way may have come through
        assert saved == list(range(found + 1, found + 1 + len(saved)))
        acknowledged = found + len(saved)
    bench = reopened(folder)
    record = bench.load(ALICE)
    assert record is not None
    assert acknowledged <= record.version <= acknowledged + 1
    bench.close()


if __name__ == "__main__":
    write_until_killed(Path(sys.argv[1]))
