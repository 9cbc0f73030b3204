"""What the settings of email-oauth2-proxy's account sections come to: an app, a sealed token, the protocols meant.

An account takes what it does not say itself from its domain's section `[@contoso.com]` and from `[@]`, if catch-all
accounts are allowed; a cache file's values stand over the configuration's. Called by `email_oauth2_proxy.py`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from proxy.app.importing.endpoints import Authority, is_guid, read_endpoint
from proxy.app.importing.found import FoundApp, Sealed
from proxy.app.importing.ini import DEFAULT, Ini, Section
from proxy.config.apps import MAX_REDIRECT_CHARACTERS
from proxy.config.findings import quoted
from proxy.config.settings import Cloud, ProtocolName

OPTIONS = "emailproxy"
ITERATIONS = (
    1_200_000,
    100_000,
)  # its own of now, and those of files that name none (its versions before October 2023)
_PLACEHOLDER = "***"
_FLOWS = ("", "authorization_code", "device", "client_credentials", "password")
_YES = ("1", "yes", "true", "on")  # configparser's
_SCOPES: tuple[tuple[ProtocolName, str], ...] = (
    ("imap", "imap.accessasuser.all"),
    ("pop3", "pop.accessasuser.all"),
    ("smtp", "smtp.send"),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an account's settings come to, or why they come to nothing."""

    app: FoundApp | None
    problem: str = ""
    remark: str = ""
    """Why the account is not taken as it stood, if it is taken otherwise."""


class Values:
    """The settings of one configuration, with the cache files beside it."""

    def __init__(self, ini: Ini, caches: Sequence[Ini]) -> None:
        self._sections = ini.sections
        self._caches = caches
        self._defaults = ini.sections.get(DEFAULT)
        options = ini.sections.get(OPTIONS)
        self.catch_all = options is not None and self.value(options, "allow_catch_all_accounts").lower() in _YES
        self._dod = any("outlook-dod" in self.value(each, "server_address") for each in ini.sections.values())

    def value(self, section: Section, key: str) -> str:
        for each in (section, self._defaults):
            if each is not None and key in each.settings:
                return each.settings[key].value.strip()
        return ""

    def cached(self, section: Section, key: str) -> str:
        """Of this account alone; a cache file's comes first, as there."""
        for cache in self._caches:
            if section.name in cache.sections and key in cache.sections[section.name].settings:
                return cache.sections[section.name].settings[key].value.strip()
        return self.value(section, key)

    def inherited(self, section: Section, key: str) -> str:
        """The account's own, else its domain's, else everybody's."""
        value = self.cached(section, key)
        if not value and self.catch_all:
            for name in (f"@{section.name.rpartition('@')[2]}", "@"):
                value = value or (self.cached(self._sections[name], key) if name in self._sections else "")
        return value

    def choose(self, section: Section) -> Chosen:
        """The app that this section's settings name."""
        get = partial(self.inherited, section)
        flow = get("oauth2_flow")
        token_url, client_id = get("token_url"), get("client_id")
        if flow == "service_account":
            return Chosen(None, "a service account is Google's, and mailferry serves Microsoft alone")
        if not token_url:
            return Chosen(None, "token_url is missing, so that program could not use it either")
        authority = read_endpoint(token_url)
        if isinstance(authority, str):
            return Chosen(None, f"token_url: {authority}")
        if not is_guid(client_id):
            what = "is still the sample's placeholder" if _PLACEHOLDER in client_id else "is no application id"
            return Chosen(None, f"client_id {what}")
        if flow not in _FLOWS:
            return Chosen(None, f"oauth2_flow {quoted(flow)} is not known")
        app_only = flow == "client_credentials" and not get("permission_url")
        files = (get("jwt_certificate_path"), get("jwt_key_path"))
        secret = self._secret(section)
        sealed_secret = bool(self.inherited(section, "client_secret_encrypted"))
        problem = self._app_only_problem(authority, secret, sealed_secret, files) if app_only else ""
        if problem:
            return Chosen(None, problem)
        app = FoundApp(
            application_id=client_id.lower(),
            account_types=authority.account_types,
            cloud=(Cloud.DOD if self._dod and authority.cloud is Cloud.GCC_HIGH else authority.cloud).value,
            authority=authority.own,
            flow="app_only" if app_only else "delegated",
            redirect_uri=_redirect(get("redirect_uri")),
            client_secret=secret,
            certificate=files if all(files) and not secret and not sealed_secret else None,
        )
        return Chosen(app, remark=_remark(flow, app, sealed_secret))

    def _app_only_problem(self, authority: Authority, secret: str, sealed_secret: bool, files: tuple[str, str]) -> str:
        if authority.account_types in ("common", "organizations", "consumers") and not authority.own:
            return "client_credentials needs one organisation in token_url: its directory id or domain"
        if not (secret or sealed_secret or all(files)):
            return "client_credentials without a secret: mailferry needs it, or a certificate (mailferry app add)"
        return ""

    def _secret(self, section: Section) -> str:
        secret = self.inherited(section, "client_secret")
        return "" if _PLACEHOLDER in secret or not secret.isprintable() else secret

    def protocols(self, section: Section) -> tuple[ProtocolName, ...]:
        """Those that the scope names, if it names any; empty for all."""
        scope = self.inherited(section, "oauth2_scope").casefold()
        named = tuple(protocol for protocol, word in _SCOPES if word in scope)
        return named if 0 < len(named) < len(_SCOPES) else ()

    def sealed(self, section: Section, key: str) -> Sealed | None:
        text, salt = self.cached(section, key), self.inherited(section, "token_salt")
        if not text or not salt:
            return None
        try:
            octets = base64.b64decode(salt)
        except (binascii.Error, ValueError):
            return None
        written = self.inherited(section, "token_iterations")
        own = (int(written),) if written.isascii() and written.isdigit() and len(written) < 10 else ()
        return Sealed("fernet", text, octets, tuple(dict.fromkeys((*own, *ITERATIONS))))


def _redirect(address: str) -> str:
    """What our configuration takes; empty for the default."""
    try:
        parts = urlsplit(address)
        good = bool(parts.hostname) and parts.port != 0 and not parts.fragment and address.isprintable()
    except ValueError:
        return ""
    local = parts.hostname in ("localhost", "127.0.0.1")
    fits = (
        good
        and len(address) <= MAX_REDIRECT_CHARACTERS
        and (parts.scheme == "https" or (parts.scheme == "http" and local))
    )
    return address if fits and address.rstrip("/") != "http://localhost" else ""


def _remark(flow: str, app: FoundApp, sealed_secret: bool) -> str:
    if flow == "password":
        return "its password flow is not: the person signs in once"
    if flow == "device" and (app.client_secret or app.certificate or sealed_secret):
        return "with a secret Microsoft gives no device code: sign in by browser or --paste"
    return ""
