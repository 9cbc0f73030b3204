"""Files as the other programs write them, with tokens sealed their way. Not a test."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC

from proxy.app.importing.found import Found, FoundAccount, Judged, Text, Verdict

CLIENT_ID = "33333333-3333-4333-8333-333333333333"
TENANT = "44444444-4444-4444-8444-444444444444"
PASSWORD = "the password of Outlook Express"
SALT = b"sixteen octets!!"
ITERATIONS = 1_000  # few: a test has no time for an attacker
TOKEN = "1.ARefreshToken-of_somebody"
SCOPE = " ".join(
    f"https://outlook.office.com/{name}" for name in ("IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send")
)
FILE = Path("/home/alice/emailproxy.config")


def seal(text: str, password: str = PASSWORD, iterations: int = ITERATIONS, salt: bytes = SALT) -> str:
    """As email-oauth2-proxy does it."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations, 32)
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(text.encode()).decode()


def seal_aes(text: str, password: str = PASSWORD, salt: bytes = b"davmailgateway!&") -> str:
    """As DavMail does it: Java's PBEWithHmacSHA256AndAES_128."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 10_000, 16)
    octets = text.encode()
    pad = 16 - len(octets) % 16
    encryptor = Cipher(AES128(key), CBC(salt)).encryptor()
    sealed = encryptor.update(octets + bytes([pad]) * pad) + encryptor.finalize()
    return "{AES}" + base64.b64encode(sealed).decode()


def server(kind: str = "IMAP", port: int = 1993, host: str = "outlook.office365.com", **more: str) -> str:
    return _section(f"{kind}-{port}", {"server_address": host, "server_port": "993", **more})


def account(
    login: str = "alice@contoso.com", *, authority: str = "https://login.microsoftonline.com/organizations", **more: str
) -> str:
    """A section for the authorization code flow, unless `more` says otherwise; an empty value leaves a key out."""
    settings = {
        "permission_url": f"{authority}/oauth2/v2.0/authorize",
        "token_url": f"{authority}/oauth2/v2.0/token",
        "oauth2_scope": f"{SCOPE} offline_access",
        "redirect_uri": "http://localhost",
        "client_id": CLIENT_ID,
        **more,
    }
    return _section(login, {key: value for key, value in settings.items() if value})


def tokens(token: str = TOKEN, password: str = PASSWORD, iterations: int = ITERATIONS) -> dict[str, str]:
    """What the program adds to an account's section once somebody has signed in."""
    return {
        "token_salt": base64.b64encode(SALT).decode(),
        "token_iterations": str(iterations),
        "access_token": seal("an access token", password, iterations),
        "access_token_expiry": "1764528000",
        "refresh_token": seal(token, password, iterations),
        "last_activity": "1764524400",
    }


def options(**more: str) -> str:
    return _section("emailproxy", {"delete_account_token_on_password_error": "True", **more})


def token_file(token: str = TOKEN, **more: str) -> str:
    """A token file of sasl-xoauth2."""
    return json.dumps({"access_token": "short-lived", "expiry": "1764528000", "refresh_token": token, **more}, indent=4)


def _section(name: str, settings: dict[str, str]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in settings.items()), "", ""])


def text(content: str, file: Path = FILE) -> Text:
    return Text(file, content)


def the_account(found: Found) -> FoundAccount:
    (only,) = found.accounts
    return only


def verdicts(found: Found) -> dict[str, Verdict]:
    """By subject; of equal ones the first."""
    told: dict[str, Verdict] = {}
    for judged in found.judged:
        told.setdefault(judged.subject, judged.verdict)
    return told


def judged(found: Found, subject: str) -> Judged:
    return next(each for each in found.judged if each.subject == subject)


def unjudged(found: Found, given: Text, comment: tuple[str, ...]) -> list[int]:
    """The lines with something in them that nobody judged."""
    known = {line for each in found.judged if each.file == given.file for line in range(each.line, each.last_line + 1)}
    lines = enumerate(given.text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1)
    return [
        number
        for number, line in lines
        if line.strip() and not line.strip().startswith(comment) and number not in known
    ]
