"""A backup: one text file, sealed with a passphrase, that holds the store's records and perhaps the files of conf.d.

    mailferry backup 1
    {"kdf": "scrypt", "ln": 17, "made_at": "2026-10-17T08:00:00Z", "p": 1, "r": 8, "salt": "…"}
    base64 of the sealed records
    base64 of the sealed files

Both parts are sealed as the store's rows are (`vault.py`: AES-256-GCM), with the key that scrypt makes of passphrase
and salt; the first two lines and the part's name are associated data, so that no part of another backup fits in. The
store's own key is not in it, nor needed: what is restored is sealed anew.

What it is not: file or socket; every function is pure, but for the salt. Who calls it: `app/keeping.py` for the file as
a whole; `app/custody.py`, beside the store, for the records, so that tokens leave a daemon in sealed form only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.accounts.sealed import Record, Snapshot
from proxy.accounts.vault import KEY_OCTETS, Damaged, Vault, WrongKey

MAX_BACKUP_OCTETS = 256 * 2**20  # some 20,000 accounts with their caches of 8 KiB
FIRST_LINE = "mailferry backup 1"
SALT_OCTETS = 16
LOG2_N, R, P = 17, 8, 1  # OWASP's first choice for scrypt: 128 MiB and half a second for each guess
MAX_LOG2_N, MAX_R, MAX_P = 20, 16, 4  # a forged file may not ask for more: 2 GiB
_MADE_AT = re.compile(r"[0-9T:.Z+-]{10,40}")


class BackupUnusable(Exception):
    """`text` tells a person what is wrong with the file or the passphrase, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Head:
    """How the key is made of the passphrase, and when the backup was made."""

    made_at: str
    salt: bytes = field(repr=False)
    log2_n: int = LOG2_N
    r: int = R
    p: int = P

    @property
    def text(self) -> str:
        """The first two lines, always in the same form, since they are sealed with."""
        salt = base64.b64encode(self.salt).decode()
        fields = {
            "kdf": "scrypt",
            "ln": self.log2_n,
            "made_at": self.made_at,
            "p": self.p,
            "r": self.r,
            "salt": salt,
        }
        return f"{FIRST_LINE}\n{json.dumps(fields)}"

    def key(self, passphrase: str) -> bytes:
        """The key; takes half a second and 128 MiB."""
        return hashlib.scrypt(
            unicodedata.normalize("NFKC", passphrase).encode(),  # the same, whatever keyboard typed it
            salt=self.salt,
            n=1 << self.log2_n,
            r=self.r,
            p=self.p,
            maxmem=256 * self.r * (1 << self.log2_n) + 2**20,
            dklen=KEY_OCTETS,
        )


@dataclass(frozen=True, slots=True)
class Backup:
    """The parts of the file; boxes are base64 text."""

    head: Head
    records: str = field(repr=False)
    files: str = field(repr=False)

    @property
    def text(self) -> str:
        return f"{self.head.text}\n{self.records}\n{self.files}\n"


def new_head(made_at: str) -> Head:
    return Head(made_at, secrets.token_bytes(SALT_OCTETS))


def is_backup(beginning: bytes) -> bool:
    """Whether a file that begins like this is one, of whatever version."""
    return beginning.startswith(FIRST_LINE.rpartition(" ")[0].encode())


def parse(text: str) -> Backup:
    """The parts of a file. Raises: BackupUnusable: it is none, or of another version, or not whole."""
    first, *rest = text.split("\n")
    if first != FIRST_LINE:
        if is_backup(first.encode()):
            raise BackupUnusable(f"This backup is of another form ({first!r}): restore it with a newer mailferry.")
        raise BackupUnusable("This is no backup that `mailferry backup` wrote.")
    match rest:
        case [fields, records, files, ""]:
            return Backup(_head(fields), records, files)
        case _:
            raise _not_whole()


def _head(line: str) -> Head:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise _not_whole() from None
    match fields:
        case {"kdf": "scrypt", "ln": int(n), "made_at": str(at), "p": int(p), "r": int(r), "salt": str(salt), **more}:
            sane = 1 <= n <= MAX_LOG2_N and 1 <= r <= MAX_R and 1 <= p <= MAX_P and _MADE_AT.fullmatch(at)
            if sane and not more:
                head = Head(at, _octets(salt), n, r, p)
                if head.text == f"{FIRST_LINE}\n{line}":
                    return head
    raise _not_whole()


def seal_records(key: bytes, head: str, snapshot: Snapshot) -> str:
    """The records' part. `head` is `Head.text`."""
    records = {name: {"version": record.version, "data": record.data} for name, record in snapshot.records.items()}
    return _seal(key, "records", head, {"lineage": snapshot.lineage, "records": records})


def open_records(key: bytes, head: str, box: str) -> Snapshot:
    """What was sealed. Raises: BackupUnusable."""
    match _open(key, "records", head, box):
        case {"lineage": str(lineage), "records": dict(records)}:
            return Snapshot(lineage, {name: _record(record) for name, record in records.items()})
    raise _not_whole()


def _record(fields: object) -> Record:
    match fields:
        case {"version": int(version), "data": dict(data)} if version > 0:
            return Record(version, data)
    raise _not_whole()


def seal_files(key: bytes, head: str, files: Mapping[str, str]) -> str:
    """The part of conf.d's files: their texts by their names."""
    return _seal(key, "files", head, dict(files))


def open_files(key: bytes, head: str, box: str) -> dict[str, str]:
    """What was sealed. Raises: BackupUnusable."""
    files = _open(key, "files", head, box)
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise _not_whole()
    return files


def _seal(key: bytes, part: str, head: str, content: object) -> str:
    plain = json.dumps(content, allow_nan=False).encode()
    return base64.b64encode(Vault(key).seal(f"{part}\n{head}", plain)).decode()


def _open(key: bytes, part: str, head: str, box: str) -> object:
    try:
        return json.loads(Vault(key).open(f"{part}\n{head}", _octets(box)))
    except WrongKey:
        raise BackupUnusable("The passphrase is not the one that this backup was made with.") from None
    except (Damaged, ValueError):
        raise _not_whole() from None


def _octets(text: str) -> bytes:
    """Raises: BackupUnusable."""
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _not_whole() from None
    if base64.b64encode(octets).decode() != text:  # the last character may be one of several
        raise _not_whole()
    return octets


def _not_whole() -> BackupUnusable:
    return BackupUnusable("The backup is not whole, or was altered. Take another copy of it; nothing was restored.")
