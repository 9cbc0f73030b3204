"""Opens what other programs sealed with a mail program's password.

email-oauth2-proxy: a Fernet token, its key by PBKDF2-HMAC-SHA256 of the password with the account's salt. DavMail:
AES-128 in CBC mode, key by PBKDF2-HMAC-SHA256, the salt being the initial vector too (Java's
PBEWithHmacSHA256AndAES_128). Both formats are those programs' own; nothing here seals. Called by `app/takeover.py`.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import pbkdf2_hmac

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from proxy.app.importing.found import Sealed

MAX_ITERATIONS = 10_000_000  # eight times what email-oauth2-proxy makes: some four seconds; more is a hostile file's
_FERNET_KEY_OCTETS = 32
_AES_KEY_OCTETS = 16
_AES_BLOCK_BITS = 128


def open_sealed(sealed: Sealed, password: str) -> str | None:
    """What was sealed; None if this is not the password, or nothing can be made of it. Takes up to seconds."""
    if sealed.form == "clear":
        return sealed.text
    for iterations in sealed.iterations:
        if 0 < iterations <= MAX_ITERATIONS:
            opener = _open_fernet if sealed.form == "fernet" else _open_aes
            try:
                text = opener(sealed, password.encode(), iterations).decode()
            except (InvalidToken, ValueError, binascii.Error):  # UnicodeDecodeError is a ValueError
                continue
            if text.isprintable():
                return text
    return None


def _open_fernet(sealed: Sealed, password: bytes, iterations: int) -> bytes:
    key = pbkdf2_hmac("sha256", password, sealed.salt, iterations, _FERNET_KEY_OCTETS)
    return Fernet(base64.urlsafe_b64encode(key)).decrypt(sealed.text.encode())


def _open_aes(sealed: Sealed, password: bytes, iterations: int) -> bytes:
    """Raises: ValueError: the padding is not right, which a wrong password leaves so in all but one of 256 times."""
    key = pbkdf2_hmac("sha256", password, sealed.salt, iterations, _AES_KEY_OCTETS)
    # Not our choice: the mode without a seal is DavMail's, and what comes out is used as a token or not at all.
    decryptor = Cipher(AES128(key), CBC(sealed.salt)).decryptor()
    padded = decryptor.update(base64.b64decode(sealed.text, validate=True)) + decryptor.finalize()
    unpadder = PKCS7(_AES_BLOCK_BITS).unpadder()
    return unpadder.update(padded) + unpadder.finalize()
