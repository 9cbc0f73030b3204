"""Local passwords and their scrypt hashes, as PHC strings. `passdb.py` tries them; the command line makes them."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import scrypt

SCRYPT_LN = 14  # log2 of the cost: 16 MiB and 48 ms of a core (SPEED trap 5)
SCRYPT_R = 8
SCRYPT_P = 1
SALT_OCTETS = 16
HASH_OCTETS = 32
MAX_SCRYPT_OCTETS = 1 << 28  # a hash that needs more memory than 256 MiB is refused, not tried
MAX_SCRYPT_P = 16  # nor one that multiplies its time by more

PASSWORD_CHARACTERS = 24  # CLIENTS 0.7: ASCII, without quotes and backslashes; 138 bits
PASSWORD_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"  # noqa: S105 - look-alikes left out

_PHC = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")


@dataclass(frozen=True, slots=True)
class Cost:
    ln: int = SCRYPT_LN
    r: int = SCRYPT_R
    p: int = SCRYPT_P

    def run(self, password: bytes, salt: bytes, octets: int) -> bytes:
        # OpenSSL counts all its buffers against `maxmem`, not only the large one.
        room = 128 * self.r * ((1 << self.ln) + self.p + 2)
        return scrypt(password, salt=salt, n=1 << self.ln, r=self.r, p=self.p, maxmem=room, dklen=octets)


@dataclass(frozen=True, slots=True)
class Hash:
    """A PHC string, taken apart."""

    cost: Cost
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    @classmethod
    def parse(cls, phc: str) -> Hash:
        """Raises: ValueError if it is no scrypt PHC string, or one that costs too much; the text shows none of it."""
        found = _PHC.fullmatch(phc)
        if found is None:
            raise ValueError("not a scrypt hash of the form $scrypt$ln=14,r=8,p=1$salt$hash")
        ln, r, p = (int(digits) for digits in found.groups()[:3])
        # OpenSSL runs none whose ln is 16·r or more: the cost must fit into a block.
        if min(ln, r, p) < 1 or ln >= 16 * r or p > MAX_SCRYPT_P or (128 * r) << ln > MAX_SCRYPT_OCTETS:
            raise ValueError("a scrypt hash whose cost is out of bounds")
        try:
            return cls(Cost(ln, r, p), _unpadded(found[4]), _unpadded(found[5]))
        except binascii.Error:
            raise ValueError("a scrypt hash with broken base64") from None

    def verify(self, password: bytes) -> bool:
        return hmac.compare_digest(self.cost.run(password, self.salt, len(self.hash)), self.hash)


def _unpadded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def hash_password(password: str) -> str:
    """The password's scrypt PHC string, as passlib prints it; about 50 ms of work."""
    salt = secrets.token_bytes(SALT_OCTETS)
    digest = Cost().run(password.encode(), salt, HASH_OCTETS)
    salt_text, digest_text = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    return f"$scrypt$ln={SCRYPT_LN},r={SCRYPT_R},p={SCRYPT_P}${salt_text}${digest_text}"


def verify_hash(password: bytes, phc: str) -> bool:
    """Whether this hash is of this password.

    Raises:
        ValueError: not a scrypt PHC string, or one that costs too much.
    """
    return Hash.parse(phc).verify(password)


def generate_password() -> str:
    """A new local password: any mail program can store it, and a person can type it off a sheet of paper."""
    return "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_CHARACTERS))
