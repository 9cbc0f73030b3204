from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.config import files
from proxy.config.files import FileTrouble, exposure, make_folder, read_regular, remove, write_atomically


def state(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 0, 0, 1, owner, owner, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "me", "exposed"),
    [
        (0o600, 1000, 1000, False),
        (0o400, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o604, 1000, 1000, True),
        (0o620, 1000, 1000, True),
        (0o640, 0, 1000, False),
        (0o660, 0, 1000, True),
        (0o644, 0, 1000, True),
        (0o600, 1001, 1000, True),
        (0o600, 1001, 0, False),
        (0o640, 1001, 0, True),
    ],
)
def test_who_else_can_read(monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, me: int, exposed: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: me)
    assert (exposure(state(mode, owner)) is not None) is exposed


def test_reading_is_bounded_and_never_waits(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_regular(tmp_path / "f", 5)[0] == b"12345"
    with pytest.raises(FileTrouble, match=r"^is larger than 4 octets$"):
        read_regular(tmp_path / "f", 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileTrouble, match=r"^is not a regular file$"):
        read_regular(tmp_path / "pipe", 4)
    with pytest.raises(FileTrouble, match=r"^is not a regular file$"):
        read_regular(tmp_path, 4)
    with pytest.raises(FileTrouble, match=r"^cannot be opened: no such file or directory$"):
        read_regular(tmp_path / "none", 4)


def test_a_written_file_is_private_and_whole(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomically(tmp_path, "f", "one\n")
        write_atomically(tmp_path, "f", "two ü\n")
    finally:
        os.umask(before)
    assert (tmp_path / "f").read_text(encoding="utf-8") == "two ü\n"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["f"]


def test_what_a_killed_writer_left_behind_is_no_hindrance(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".f.tmp").symlink_to(outside)
    write_atomically(folder, "f", "new")
    assert (folder / "f").read_text() == "new"
    assert outside.read_text() == "theirs"
    assert os.listdir(folder) == ["f"]


def test_the_disk_is_asked_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def renamed(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append("rename")
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write_atomically(tmp_path, "f", "x")
    assert steps == ["file", "rename", "folder"]


def failing(*args: object, **named: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["open", "fchmod", "fsync", "rename"])
def test_a_failure_at_any_step_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_atomically(tmp_path, "f", "old")
    monkeypatch.setattr(os, step, _only_for_files(getattr(os, step)) if step == "open" else failing)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path, "f", "new")
    monkeypatch.undo()
    assert (tmp_path / "f").read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def _only_for_files(real: Callable[..., int]) -> Callable[..., int]:
    def opened(path: object, flags: int, *args: object, **named: object) -> int:
        if flags & os.O_CREAT:
            failing()
        return real(path, flags, *args, **named)

    return opened


def test_a_folder_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        write_atomically(tmp_path / "link", "f", "x")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        remove(tmp_path / "link", "f")
    assert os.listdir(tmp_path / "real") == []


def test_what_root_writes_belongs_to_the_folders_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda descriptor: state(real(descriptor).st_mode, 990))
    files.write_atomically(tmp_path, "f", "x")
    assert given == [(990, 990)]


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "d", 0o700)
    make_folder(tmp_path / "d", 0o755)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
