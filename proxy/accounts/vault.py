"""The vault: seals and opens what the store keeps, and reads the key that does it.

A sealed record is `version (1) | key id (8) | nonce (12) | AES-256-GCM text and tag`, with the record's name as
associated data: a row that was swapped, cut or written by somebody else does not open. What it is not: a place where
records lie (that is `store.py`), and no key is ever derived from a mail password. Who calls it: `store.py`; the daemon
reads the key.

The key file holds 32 random bytes as base64 text on one line, as `openssl rand -base64 32` prints them.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.config.settings import KeySource

KEY_OCTETS = 32  # AES-256
VERSION = b"\x01"
KEY_ID_OCTETS = 8
NONCE_OCTETS = 12  # SP 800-38D §8.2.2; random, so a key is good for 2^32 records
_HEADER_OCTETS = len(VERSION) + KEY_ID_OCTETS + NONCE_OCTETS
_KEY_FILE_OCTETS = 4_096  # a key file is one short line; whatever is longer is something else


class WrongKey(Exception):
    """The record was sealed with a key that this vault does not hold."""


class Damaged(Exception):
    """The record is not one of ours, or not whole, or not the one of this name."""


class KeyUnusable(Exception):
    """There is no key to work with. `text` tells a person what is wrong and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Vault:
    """Seals with one key; opens with every key it holds, told apart by the key id in the record."""

    def __init__(self, key: bytes) -> None:
        self._sealing_id = _key_id(key)
        self._ciphers = {self._sealing_id: AESGCM(key)}

    def seal(self, record: str, plain: bytes) -> bytes:
        """`plain` sealed under this record's name."""
        nonce = secrets.token_bytes(NONCE_OCTETS)
        text = self._ciphers[self._sealing_id].encrypt(nonce, plain, record.encode())
        return VERSION + self._sealing_id + nonce + text

    def open(self, record: str, sealed: bytes) -> bytes:
        """What was sealed under this record's name.

        Raises:
            WrongKey: sealed with another key.
            Damaged: no sealed record, or altered, or of another name.
        """
        if not sealed.startswith(VERSION) or len(sealed) < _HEADER_OCTETS:
            raise Damaged("not a sealed record")
        key_id = sealed[len(VERSION) : len(VERSION) + KEY_ID_OCTETS]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise WrongKey("sealed with another key")
        nonce, text = sealed[_HEADER_OCTETS - NONCE_OCTETS : _HEADER_OCTETS], sealed[_HEADER_OCTETS:]
        try:
            return cipher.decrypt(nonce, text, record.encode())
        except InvalidTag:
            raise Damaged("altered, or of another name") from None


def read_key(source: KeySource) -> bytes:
    """The store's key, `KEY_OCTETS` long; made first if it is absent and may be made. A key file is never overwritten.

    Raises:
        KeyUnusable: absent, not private, not readable, or not a key.
    """
    if source.created and not source.file.exists():
        _make_key_file(source.file)
    text = _private_text(source.file)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_OCTETS:
        raise KeyUnusable(
            f"The key file {source.file} does not hold a key: {KEY_OCTETS} bytes as base64 text are expected. "
            "Put back the file that the store was made with."
        )
    return key


def _key_id(key: bytes) -> bytes:
    return blake2b(key, digest_size=KEY_ID_OCTETS, person=b"mailferry key id").digest()


def _private_text(file: Path) -> bytes:
    """The content of a file that only we, or root, can read or write."""
    try:
        # Without O_NONBLOCK a pipe in the file's place would hold up the start for ever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyUnusable(
            f"There is no key file at {file}. Put it back from your backup: without it no stored sign-in can be read."
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


def _make_key_file(file: Path) -> None:
    """A new key, on the disk before it is used. It appears under its name whole or not at all."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as opened:
                opened.write(base64.b64encode(secrets.token_bytes(KEY_OCTETS)) + b"\n")
                opened.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):  # another process was faster: its key is the key
                os.link(draft, file)
        finally:
            draft.unlink()
        _sync_folder(file.parent)
    except OSError as error:
        raise KeyUnusable(f"The key file {file} cannot be made: {error.strerror}.") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
