"""Texts without names and secrets: who is who stays visible, who it is does not.

An address becomes `address-1@domain-1`, the same one everywhere in a report; ids become `id-1`; what is known to be
secret, and every word that looks like a secret, is left out. What it is not: a guess at free text by persons, who are
asked to read a report before they hand it on. `bundle.py` calls it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from proxy.config import Config
from proxy.config.clouds import SIGN_IN_HOSTS

LEFT_OUT = "(left out)"
MIN_SECRET_CHARACTERS = 4  # a shorter one would be found in half of all words
_ADDRESS = re.compile(r"[\w.!#$&'*+/?^`{|}~-]+(?:@|%40)[\w-]+(?:\.[\w-]+)*", re.IGNORECASE)
_PSEUDONYM = re.compile(r"address-\d+")
_GUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_LONG_WORD = re.compile(r"[A-Za-z0-9+/=_~$-]{20,}")  # a base64 or random word; sentences and paths have shorter ones
_USER_CODE = re.compile(r"\b(?!AADSTS)(?!STARTTLS)[A-Z0-9]{8,9}\b")  # a device code, as Microsoft spells it
_CODE_BEHIND = re.compile(r"(\bcode:? +)([A-Za-z0-9-]{6,12})\b")
_QUERY = re.compile(r"(\?)[^\s\"'<>]{8,}")
_USER_INFO = re.compile(r"//[^\s/@]+@")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_SAFE_WORDS = re.compile(r"[a-z_.]{20,}|-?[A-Z][a-z]+(?:[A-Z][a-z]+)+|-+|=+|/(?:[A-Za-z0-9_-]{1,16}/?)+")
"""What is long and no secret: our own names, PowerShell's, lines, paths."""
_PLAIN_APP_NAMES = frozenset(
    {"app", "home", "mail", "mailferry", "main", "office", "outlook", "personal", "private", "robot", "work"}
)
"""They tell nothing, and stand in many a sentence."""
_PUBLIC_DOMAINS = frozenset(
    {"outlook.com", "hotmail.com", "live.com", "msn.com", "outlook.office.com", "outlook.office365.com"}
)


class Redactor:
    """Replaces, consistently; made once for a report."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._addresses: dict[str, str] = {}
        self._domains: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._words: dict[str, str] = {}
        """Whole words of people: logins that are no address."""
        known = {each for each in _secrets(config, environ) if len(each) >= MIN_SECRET_CHARACTERS}
        self._secrets = sorted(known, key=len, reverse=True)
        self._home = environ.get("HOME", "").rstrip("/")
        for account in config.accounts:
            for name in (*account.logins, account.mailbox, account.sign_in):
                if "@" in name:
                    self.address(name)
                elif name:
                    self._words.setdefault(name, f"login-{len(self._words) + 1}")
        for number, app in enumerate(config.apps.values(), 1):
            if app.name.casefold() not in _PLAIN_APP_NAMES:
                self._words.setdefault(app.name, f"app-{number}")
            tenant = urlsplit(app.authority).path.strip("/").partition("/")[0]
            for text in (tenant, app.account_types):
                if "." in text:
                    self._domain(text)
                elif _GUID.fullmatch(text):
                    self._id(text)
                elif text not in ("common", "organizations", "consumers", ""):
                    self._words.setdefault(text, "tenant")

    def address(self, text: str) -> str:
        """The pseudonym of a mail address."""
        local, _, domain = unquote(text).casefold().rpartition("@")
        if _PSEUDONYM.fullmatch(local):
            return text
        key = f"{local}@{domain}"
        if key not in self._addresses:
            self._addresses[key] = f"address-{len(self._addresses) + 1}@{self._domain(domain)}"
        return self._addresses[key]

    def text(self, text: str) -> str:
        """A text that may go to anybody."""
        text = _USER_INFO.sub(f"//{LEFT_OUT}@", text)
        for secret in self._secrets:
            text = text.replace(secret, LEFT_OUT)
        if len(self._home) > 1:
            text = text.replace(self._home, "~")
        text = _QUERY.sub(rf"\1{LEFT_OUT}", text)
        text = _ADDRESS.sub(lambda found: self.address(found[0]), text)
        text = _GUID.sub(lambda found: self._id(found[0]), text)
        for domain, instead in self._domains.items():
            text = re.sub(rf"(?<![\w-]){re.escape(domain)}(?![\w-])", instead, text, flags=re.IGNORECASE)
        for word, instead in self._words.items():
            text = re.sub(rf"(?<![A-Za-z0-9@]){re.escape(word)}(?![A-Za-z0-9@])", instead, text, flags=re.IGNORECASE)
        text = _CODE_BEHIND.sub(lambda found: found[0] if found[2].islower() else f"{found[1]}{LEFT_OUT}", text)
        text = _USER_CODE.sub(LEFT_OUT, text)
        return _LONG_WORD.sub(lambda found: found[0] if _SAFE_WORDS.fullmatch(found[0]) else LEFT_OUT, text)

    def quoting(self, text: str) -> str:
        """A text that quotes what a person wrote, which may be anything: without that."""
        return self.text(_QUOTED.sub(LEFT_OUT, text))

    def login(self, name: str) -> str:
        """What somebody gave as a login, or an address of the network: a stranger's is left out."""
        known = "@" in name or name in self._words
        return self.text(name) if known else LEFT_OUT

    def plain(self, value: Any) -> Any:
        """The same for JSON."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {key: self.plain(each) for key, each in value.items()}
            case list() | tuple():
                return [self.plain(each) for each in value]
            case _:
                return value

    def _domain(self, domain: str) -> str:
        domain = domain.casefold()
        if domain in _PUBLIC_DOMAINS or domain in SIGN_IN_HOSTS.values() or domain == "localhost":
            return domain
        return self._domains.setdefault(domain, f"domain-{len(self._domains) + 1}")

    def _id(self, text: str) -> str:
        return self._ids.setdefault(text.casefold(), f"id-{len(self._ids) + 1}")


def _secrets(config: Config, environ: Mapping[str, str]) -> Iterable[str]:
    """What is known to be secret: the configuration's, the store's key, a proxy's password."""
    for app in config.apps.values():
        if app.client_secret:
            yield app.client_secret.value
    for account in config.accounts:
        for password in account.passwords:
            yield from filter(None, [password.hash, *password.hash.split("$")[-2:]])
    with contextlib.suppress(OSError, UnicodeDecodeError):
        yield config.key.file.read_text().strip()
    for name, value in environ.items():
        if name.casefold().endswith("_proxy"):
            given = value.rpartition("@")[0].rpartition("/")[2].partition(":")[2]
            yield from (given, unquote(given))
