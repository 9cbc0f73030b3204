"""GROUND: the files around a configuration: bounded reading, who else can read them, atomic writing.

What it is not: anything about what stands in them. Called by the readers beside it, and by `conf_d.py` and
`starter.py` to write.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

PRIVATE_MODE = 0o600


class FileTrouble(Exception):
    """A file that cannot be used; the text says why, in words that follow the file's name."""


def read_regular(file: Path, limit_octets: int) -> tuple[bytes, os.stat_result]:
    """The content of a regular file of at most this size, and its state.

    Raises:
        FileTrouble: it is missing, not allowed, no regular file (a pipe could keep us waiting for ever) or too large.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileTrouble(f"cannot be opened: {reason(error)}") from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise FileTrouble("is not a regular file")
        with open(descriptor, "rb", closefd=False) as opened:
            content = opened.read(limit_octets + 1)
    except OSError as error:
        raise FileTrouble(f"cannot be read: {reason(error)}") from error
    finally:
        os.close(descriptor)
    if len(content) > limit_octets:
        raise FileTrouble(f"is larger than {limit_octets} octets")
    return content, state


def exposure(state: os.stat_result) -> str | None:
    """Who else can read a file that holds a secret, or None when nobody can.

    The rule is PostgreSQL's for key files: ours with mode 0600 or less, or root's with mode 0640 or less (the group
    is then the daemon's). Root itself may read what belongs to anybody.
    """
    forbidden = 0o037 if state.st_uid == 0 else 0o077
    if state.st_mode & forbidden:
        return f"others on this machine can read or change it (mode {stat.S_IMODE(state.st_mode):04o})"
    if state.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        return f"it belongs to another user (uid {state.st_uid})"
    return None


def reason(error: OSError) -> str:
    """The system's words for an error, without its number."""
    return (error.strerror or type(error).__name__).lower()


def make_folder(folder: Path, mode: int) -> None:
    """Make this folder where it is missing; it belongs to whom its parent belongs to. Raises: OSError."""
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        return
    with open_folder(folder) as made:
        _give(os.stat(folder.parent), made)


def write_atomically(folder: Path, name: str, text: str) -> None:
    """Put a file of mode 0600 into this folder: afterwards there is the old file or the whole new one, never a part.

    The file belongs to whom the folder belongs to, so that a daemon reads what root wrote for it.

    Raises:
        OSError: it could not be done, and the old file stands; or the disk could not confirm that it is done.
    """
    temporary = f".{name}.tmp"
    with open_folder(folder) as at:
        try:
            _write_new(at, temporary, text)
            os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=at)
        os.fsync(at)


def remove(folder: Path, name: str) -> None:
    """Remove a file from this folder, for good. Raises: OSError."""
    with open_folder(folder) as at:
        os.unlink(name, dir_fd=at)
        os.fsync(at)


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """The descriptor of this folder, which is no symbolic link. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_new(folder: int, name: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)  # left behind by a writer that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, PRIVATE_MODE, dir_fd=folder)
    with open(descriptor, "w", encoding="utf-8") as opened:
        os.fchmod(descriptor, PRIVATE_MODE)
        _give(os.fstat(folder), descriptor)
        opened.write(text)
        opened.flush()
        os.fsync(descriptor)


def _give(owner: os.stat_result, descriptor: int) -> None:
    """What root makes in somebody's folder becomes that body's."""
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
