"""The store's files (store.py, sealed.py, rows.py, keys.py) when the process ends at a write, or the disk fails there.

What the store does is done by a child of this test under strace: once without a fault, so that every system call is
known that changes anything, then once for each of them with a fault there: SIGKILL instead of the call, or the call
fails, and all after it, as on a full disk or a broken one. Each time the files are then opened as the next start opens
them.

strace counts the calls of each thread and name by themselves. So each deed is one that a single thread does, which
`_calls` makes sure of.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.accounts.keys import FileKey, KeyUnusable
from proxy.accounts.sealed import Record, SealedTable, Snapshot, StoreError

CHANGES = ("write", "pwrite64", "fsync", "fdatasync", "rename", "link", "unlink", "ftruncate", "fchmod", "mkdir")
"""What SQLite and Python's own writing of files come to; `test_no_other_call_changes_a_file` holds it true."""
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1  # prctl(2): where only a parent may trace (Yama)
LEAST_POINTS = 8  # a deed that has less of them is not seen
DEADLINE_S = 60
SAVES = 3
ALICE, BOB, CAROL = "grant/work/alice@contoso.com", "grant/work/bob@contoso.com", "grant/work/carol@contoso.com"
RECORDS = {ALICE: Record(2, {"n": 1}), BOB: Record(1, {"text": "x" * 9_000})}
RESTORED = {ALICE: Record(9, {"n": 11}), CAROL: Record(5, {"text": "y" * 9_000})}

CHILD = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}


def opened(folder: Path) -> SealedTable:
    return SealedTable(folder / "tokens.sqlite", FileKey(folder / "mailferry.key", created=True))


# --- what the child does


def start(folder: Path) -> None:
    opened(folder)


def save(folder: Path) -> None:
    """Each save is said on standard output, past strace's eyes, once it is acknowledged."""
    table = opened(folder)
    for version in range(2, 2 + SAVES):
        table.save(ALICE, {"n": version}, version)
        os.writev(1, [b"%d\n" % (version + 1)])
    table.close()


def rotate(folder: Path) -> None:
    opened(folder).rotate()


def restore(folder: Path) -> None:
    table = opened(folder)
    table.restore(Snapshot(table.snapshot().lineage, RESTORED), replace=False, rehearse=False)


DEEDS: dict[str, Callable[[Path], None]] = {"start": start, "save": save, "rotate": rotate, "restore": restore}


def do(deed: str, folder: Path) -> int:
    """1: the store said in words that it cannot, as it should when the disk fails."""
    try:
        DEEDS[deed](folder)
    except (StoreError, KeyUnusable) as told:
        os.writev(2, [told.text.encode()])
        return 1
    except BaseException as error:  # a fork of another program has nobody to print it
        os.writev(2, ["".join(traceback.format_exception(error)).encode()])
        return 2
    return 0


# --- what strace does to it

KILLED = "signal=SIGKILL"
FAULTS = {"killed": KILLED, "disk full": "error=ENOSPC", "disk broken": "error=EIO", "read-only": "error=EROFS"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    folder: Path
    code: int
    said: str
    errors: str
    calls: tuple[str, ...]
    """What it did to files, in order."""


class Nursery:
    """A process with all modules loaded, from which the children fork: Python's own start takes far longer."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=CHILD, text=True, bufsize=1
        )

    def close(self) -> None:
        self._ask("")
        self._process.communicate(timeout=DEADLINE_S)

    def run(self, deed: str, folder: Path, *inject: str, trace: str = ",".join(CHANGES)) -> Ended:
        """One child, stopped until strace is there."""
        log, said, errors = (folder.with_name(f"{folder.name}.{name}") for name in ("strace", "out", "err"))
        child = int(self._ask(deed, folder, said, errors))
        options = [option for fault in inject for option in ("-e", f"inject={fault}")]
        command = ["strace", "-f", "-o", str(log), "-e", f"trace={trace}", *options, "-p", str(child)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            os.kill(child, signal.SIGCONT)
            code = int(self._ask("wait"))
            strace.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in errors.read_text(), errors.read_text()
        return Ended(folder, code, said.read_text(), errors.read_text(), _calls(log))

    def _ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(map(str, words)) + "\n")
        return self._process.stdout.readline()


def _calls(log: Path) -> tuple[str, ...]:
    """What one thread did, but for the removal of the log, which sqlitedict's does."""
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    calls = [(thread, call) for thread, call in lines if not call.startswith(("+++", "---", "???"))]
    at_the_end = [call for _, call in calls[-1:] if "unlink" in call and "-wal" in call]
    assert len({thread for thread, _ in calls[: len(calls) - len(at_the_end)]}) <= 1, f"two threads: {calls}"
    return tuple(call.partition("(")[0] for _, call in calls)


def raise_children() -> None:
    """The nursery's side: fork for each line that names a deed; tell how the last child ended for a line `wait`."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)  # our strace is no parent of ours
    logging.disable()  # it would write, too
    child = 0
    for line in sys.stdin:
        match line.rstrip("\n").split("\t"):
            case ["wait"]:
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            case [deed, folder, said, errors]:
                child = os.fork()
                if child == 0:
                    for number, name in ((1, said), (2, errors)):
                        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                    os.kill(os.getpid(), signal.SIGSTOP)
                    os._exit(do(deed, Path(folder)))
                os.waitpid(child, os.WUNTRACED)
                print(child, flush=True)
            case _:
                return


def faults(kind: str, calls: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """For each call what makes that one fail; if the disk fails, all after it fail too. strace counts by name."""
    for point, call in enumerate(calls):
        before = Counter(calls[:point])
        if kind == KILLED:
            yield (f"{call}:{kind}:when={before[call] + 1}",)
        else:
            yield tuple(f"{each}:{kind}:when={before[each] + 1}+" for each in CHANGES)


def furnish(folder: Path, deed: str) -> None:
    """A closed store with two records; nothing for a first start."""
    folder.mkdir(mode=0o700)
    if deed == "start":
        return
    with closing(opened(folder)) as table:
        table.save(ALICE, {"n": 0}, 0)
        table.save(ALICE, {"n": 1}, 1)
        table.save(BOB, {"text": "x" * 9_000}, 0)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as opened:
        yield opened


def at_every_point(nursery: Nursery, deed: str, kind: str, folder: Path, check: Callable[[Ended], None]) -> None:
    """Do it once without a fault, then have it fail at every point, and check what is left each time."""
    furnish(folder, deed)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder, folder.with_name(name)))

    whole = nursery.run(deed, copy("whole"))
    assert whole.code == 0, whole.errors
    check(whole)
    assert len(whole.calls) >= LEAST_POINTS
    for point, inject in enumerate(faults(kind, whole.calls)):
        ended = nursery.run(deed, copy(str(point)), *inject)
        assert ended.code == (-signal.SIGKILL if kind == KILLED else ended.code)
        check(ended)


def records(folder: Path) -> dict[str, Record]:
    with closing(opened(folder)) as table:
        return dict(table.snapshot().records)


def private(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o077 == 0 for each in folder.iterdir())


every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@every_fault
def test_a_first_start(nursery: Nursery, folder: Path, fault: str) -> None:
    """The next start finds no half made file: it makes what is missing, and works."""

    def check(ended: Ended) -> None:
        assert private(ended.folder)
        with closing(opened(ended.folder)) as table:
            assert table.snapshot().records == {}
            table.save(ALICE, {"n": 1}, 0)
        assert records(ended.folder) == {ALICE: Record(1, {"n": 1})}

    at_every_point(nursery, "start", fault, folder, check)


@every_fault
def test_saves(nursery: Nursery, folder: Path, fault: str) -> None:
    """What was acknowledged is there; of the save under way, all or nothing."""

    def check(ended: Ended) -> None:
        acknowledged = int((ended.said.split() or ["2"])[-1])
        found = records(ended.folder)
        version = found[ALICE].version
        assert acknowledged <= version <= acknowledged + 1
        assert found == {**RECORDS, ALICE: Record(version, {"n": version - 1})}

    at_every_point(nursery, "save", fault, folder, check)


@every_fault
def test_a_key_rotation(nursery: Nursery, folder: Path, fault: str) -> None:
    """All records open, with the old key or the new; and the rotation can be done again."""

    def check(ended: Ended) -> None:
        assert private(ended.folder)
        assert records(ended.folder) == RECORDS
        with closing(opened(ended.folder)) as table:
            assert table.rotate().left_to_do == ""
        assert records(ended.folder) == RECORDS
        left = {each.name for each in ended.folder.iterdir() if not each.name.startswith(".mailferry.key.next.")}
        assert left == {"mailferry.key", "tokens.sqlite"}, "no key but the one in use"

    at_every_point(nursery, "rotate", fault, folder, check)


@every_fault
def test_a_restore(nursery: Nursery, folder: Path, fault: str) -> None:
    """All of it is there or none; and done again, it is there."""

    def check(ended: Ended) -> None:
        before, after = RECORDS, {**RECORDS, ALICE: Record(10, {"n": 11}), CAROL: Record(6, {"text": "y" * 9_000})}
        assert records(ended.folder) in (before, after)
        with closing(opened(ended.folder)) as table:
            table.restore(Snapshot(table.snapshot().lineage, RESTORED), replace=False, rehearse=False)
        assert records(ended.folder) == after

    at_every_point(nursery, "restore", fault, folder, check)


@pytest.mark.parametrize("deed", DEEDS)
def test_no_other_call_changes_a_file(nursery: Nursery, folder: Path, deed: str) -> None:
    furnish(folder, deed)
    others = "creat,truncate,fallocate,pwritev,pwritev2,sendfile,copy_file_range,symlink,linkat,renameat,renameat2,"
    others += "unlinkat,mkdirat,chmod,fchmodat,sync,syncfs,msync,rmdir"
    ended = nursery.run(deed, folder, trace=f"{','.join(CHANGES)},{others}")
    assert set(ended.calls) <= set(CHANGES)
    assert ended.calls.count("pwrite64") >= 2, "and strace sees them"


if __name__ == "__main__":
    raise_children()
