"""The store's key: where it lies, how it is made, and how a new one takes its place.

It lies in a file (of our making, a person's, or a systemd credential) or in the desktop's keyring. While it gives way
to a new one, that lies beside it under the same name with `.next`:

1. `draft` puts the new key there; it is on the disk (the file and its folder synced) before a record is sealed with it.
2. The store seals everything with it in one transaction.
3. `promote` puts it in the old one's place, by one rename, and the old key is gone.

So whenever the machine stops, there is a key on the disk that opens every record: the old one before the transaction
is committed, the new one after it; which of the two the store sees from its check record. A draft that was never used
is taken by the next rotation. Where mailferry may not write, a person does steps 1 and 3 (`_BY_HAND`).

What it is not: it seals nothing (`vault.py`). Who calls it: `sealed.py`, in the store's thread. A key that is there is
never overwritten but by its successor.

A key file holds 32 random bytes as base64 text on one line, as `openssl rand -base64 32` prints them.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Protocol

from proxy.accounts.vault import KEY_OCTETS
from proxy.config.settings import KeySource

_KEY_FILE_OCTETS = 4_096  # a key file is one short line; whatever is longer is something else
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
KEYRING_SERVICE = "mailferry"

_BY_HAND = (
    "mailferry may not write beside the key {file}. Make the new key yourself: "
    "`(umask 077; openssl rand -base64 32 > {next})`, or for a systemd credential a file of the name {next.name} "
    "beside the old one, with a further line LoadCredential={next.name}:PATH in the unit, and a restart. "
    "Then run `mailferry key rotate` again, and afterwards put the new file in the place of the old."
)
_PUT_IN_PLACE = (
    "Now put the new key in the old one's place: what {next} holds belongs where {file} comes from. "
    "Until that is done, keep both."
)


class KeyUnusable(Exception):
    """There is no key to work with. `text` tells a person what is wrong and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class KeyPlace(Protocol):
    """Where a store's key lies, and its successor. Every method may raise `KeyUnusable`."""

    def read(self, *, make: bool) -> bytes:
        """The key, `KEY_OCTETS` long; made first if it is absent, and may be made here, and `make`."""
        ...

    def read_next(self) -> bytes | None:
        """Its successor, if there is one."""
        ...

    def draft(self) -> bytes:
        """Its successor, made if there is none; it will be there after a power cut."""
        ...

    def promote(self) -> None:
        """The successor is the key from now on; the old one is gone."""
        ...


def key_place(source: KeySource) -> KeyPlace:
    """The place that the configuration names."""
    return KeyringKey(str(source.file)) if source.keyring else FileKey(source.file, created=source.created)


class FileKey:
    """A key in a file. `created`: on a first start it is made."""

    def __init__(self, file: Path, *, created: bool) -> None:
        self._file = file
        self._created = created
        real = Path(os.path.realpath(file))  # a successor takes the place of the file, not of a link to it
        self._real, self._next = real, real.with_name(f"{real.name}.next")

    def read(self, *, make: bool) -> bytes:
        if make and self._created and not self._file.exists():
            try:
                _write_key(self._file)
            except OSError as error:
                raise KeyUnusable(f"The key file {self._file} cannot be made: {error.strerror}.") from None
        return _decoded(_private_text(self._file), f"The key file {self._file}")

    def read_next(self) -> bytes | None:
        if not os.path.lexists(self._next):
            return None
        return _decoded(_private_text(self._next), f"The key file {self._next}")

    def draft(self) -> bytes:
        if not os.path.lexists(self._next):
            try:
                _write_key(self._next)
            except OSError as error:
                if error.errno in _NOT_OURS:
                    raise KeyUnusable(_BY_HAND.format(file=self._file, next=self._next)) from None
                raise KeyUnusable(f"The key file {self._next} cannot be made: {error.strerror}.") from None
        key = self.read_next()
        assert key is not None
        return key

    def promote(self) -> None:
        try:
            os.rename(self._next, self._real)
            _sync_folder(self._real.parent)
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise KeyUnusable(_PUT_IN_PLACE.format(file=self._file, next=self._next)) from None
            raise KeyUnusable(
                f"The new key {self._next} could not be put in the place of {self._file}: {error.strerror}. "
                "The next start of mailferry tries again; until then keep both."
            ) from None


class KeyringKey:
    """A key in the desktop's keyring (the library `keyring`), under this name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = f"{name}.next"

    def read(self, *, make: bool) -> bytes:
        text = self._get(self._name)
        if text is None and make:
            text = self._put(self._name, _new_text())
        if text is None:
            raise KeyUnusable(
                f"The keyring holds no key {self._name}, but there is a store. Unlock the keyring that it was made "
                "with, or restore a backup: without the key no stored sign-in can be read."
            )
        return _decoded(text.encode(), f"The key {self._name} in the keyring")

    def read_next(self) -> bytes | None:
        text = self._get(self._next)
        return None if text is None else _decoded(text.encode(), f"The key {self._next} in the keyring")

    def draft(self) -> bytes:
        text = self._get(self._next) or self._put(self._next, _new_text())
        return _decoded(text.encode(), f"The key {self._next} in the keyring")

    def promote(self) -> None:
        text = self._get(self._next)
        if text is not None:
            self._put(self._name, text)
            self._call("delete_password", self._next)

    def _get(self, name: str) -> str | None:
        text = self._call("get_password", name)
        return text if isinstance(text, str) else None

    def _put(self, name: str, text: str) -> str:
        """Keep it, and see that it is kept: some keyrings forget."""
        self._call("set_password", name, text)
        if self._get(name) != text:
            raise KeyUnusable("The keyring does not keep what is put there. Use `key: {file: PATH}` instead.")
        return text

    def _call(self, method: str, *arguments: str) -> object:
        library = _keyring_library()
        try:
            return getattr(library, method)(KEYRING_SERVICE, *arguments)
        except Exception as error:  # a backend is a stranger's plug-in, and raises what it likes
            raise KeyUnusable(_keyring_trouble(library, error)) from None


def _keyring_library() -> ModuleType:
    """Imported only where it is asked for: it looks about for desktops, and most servers have none."""
    try:
        import keyring.errors
    except ImportError:
        raise KeyUnusable(
            "The configuration says `key: {keyring: true}`, but the Python package keyring is not installed. "
            "Run: pip install 'mailferry[keyring]'"
        ) from None
    return keyring


def _keyring_trouble(library: ModuleType, error: Exception) -> str:
    other = "or use `key: {file: PATH}`."
    if isinstance(error, library.errors.NoKeyringError):
        return f"This session has no keyring. Start mailferry in a desktop session, {other}"
    if isinstance(error, library.errors.KeyringLocked):
        return f"The keyring is locked. Unlock it (it opens when you log in to the desktop), {other}"
    return f"The keyring failed ({type(error).__name__}). Look whether it is running and unlocked, {other}"


def _new_text() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_OCTETS)).decode()


def _decoded(text: bytes, what: str) -> bytes:
    """The key in this text. Raises: KeyUnusable."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_OCTETS:
        raise KeyUnusable(
            f"{what} does not hold a key: {KEY_OCTETS} bytes as base64 text are expected. "
            "Put back what the store was made with."
        )
    return key


def _private_text(file: Path) -> bytes:
    """The content of a file that only we, or root, can read or write."""
    try:
        # Without O_NONBLOCK a pipe in the file's place would hold up the start for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyUnusable(
            f"There is no key file at {file}. Put back your copy of it: without it no stored sign-in can be read. "
            "If there is none, move tokens.sqlite* in the state folder away, and restore a backup (mailferry restore "
            "FILE) or sign in again."
        ) from None
    except OSError as error:
        raise KeyUnusable(f"The key file {file} cannot be read: {error.strerror}.") from None
    with open(descriptor, "rb") as opened:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise KeyUnusable(f"The key file {file} is not a regular file.")
        if facts.st_uid not in (os.geteuid(), 0):
            raise KeyUnusable(f"The key file {file} belongs to another user. Run: chown {os.geteuid()} {file}")
        # systemd hands a credential over as root's file with an access list, whose mask shows as group bits.
        allowed = 0o740 if facts.st_uid == facts.st_gid == 0 else 0o700
        if facts.st_mode & 0o777 & ~allowed:
            mode = f"{stat.S_IMODE(facts.st_mode):04o}"
            raise KeyUnusable(f"The key file {file} is open to other users (mode {mode}). Run: chmod 600 {file}")
        return opened.read(_KEY_FILE_OCTETS)


def _write_key(file: Path) -> None:
    """A new key, on the disk before it is used. It appears under its name whole or not at all. Raises: OSError."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(f"{_new_text()}\n".encode())
            opened.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):  # another process was faster: its key is the key
            os.link(draft, file)
    finally:
        draft.unlink()
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
