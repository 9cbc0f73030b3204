"""The vault: seals and opens what the store keeps, and what a backup holds.

A sealed record is `version (1) | key id (8) | nonce (12) | AES-256-GCM text and tag`, with the record's name as
associated data: a row that was swapped, cut or written by somebody else does not open. What it is not: a place where
records lie (that is `store.py`) or where keys do (`keys.py`), and no key is ever derived from a mail password. Who
calls it: `sealed.py`, which makes a new vault for each new key; `backup.py`.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_OCTETS = 32  # AES-256
VERSION = b"\x01"
KEY_ID_OCTETS = 8
NONCE_OCTETS = 12  # SP 800-38D §8.2.2; random, so a key is good for 2^32 records
_HEADER_OCTETS = len(VERSION) + KEY_ID_OCTETS + NONCE_OCTETS


class WrongKey(Exception):
    """The record was sealed with another key than this vault's."""


class Damaged(Exception):
    """The record is not one of ours, or not whole, or not the one of this name."""


class Vault:
    """Seals and opens with one key, whose id stands in the record."""

    def __init__(self, key: bytes) -> None:
        self._id = _key_id(key)
        self._cipher = AESGCM(key)

    def seal(self, record: str, plain: bytes) -> bytes:
        """`plain` sealed under this record's name."""
        nonce = secrets.token_bytes(NONCE_OCTETS)
        return VERSION + self._id + nonce + self._cipher.encrypt(nonce, plain, record.encode())

    def open(self, record: str, sealed: bytes) -> bytes:
        """What was sealed under this record's name.

        Raises:
            WrongKey: sealed with another key.
            Damaged: no sealed record, or altered, or of another name.
        """
        if not sealed.startswith(VERSION) or len(sealed) < _HEADER_OCTETS:
            raise Damaged("not a sealed record")
        if sealed[len(VERSION) : len(VERSION) + KEY_ID_OCTETS] != self._id:
            raise WrongKey("sealed with another key")
        nonce, text = sealed[_HEADER_OCTETS - NONCE_OCTETS : _HEADER_OCTETS], sealed[_HEADER_OCTETS:]
        try:
            return self._cipher.decrypt(nonce, text, record.encode())
        except InvalidTag:
            raise Damaged("altered, or of another name") from None


def _key_id(key: bytes) -> bytes:
    return blake2b(key, digest_size=KEY_ID_OCTETS, person=b"mailferry key id").digest()
