"""email-oauth2-proxy: its `emailproxy.config`, an INI file of servers, accounts and options, and its cache file.

Sections are `[IMAP-1993]` (a server), `[alice@contoso.com]` (an account), `[@contoso.com]` and `[@]` (what accounts
without a setting of their own take) and `[emailproxy]`. Tokens stand in the account's section, sealed with the mail
program's password. What it is not: the sense of an account's settings (`email_oauth2_proxy_values.py`). Called by
`readers.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from proxy.app.importing.email_oauth2_proxy_values import OPTIONS, Chosen, Values
from proxy.app.importing.endpoints import provider
from proxy.app.importing.found import Bench, Found, FoundAccount, FoundApp, FoundListener, Spot, Text
from proxy.app.importing.ini import DEFAULT, Ini, Section, Setting, read_ini
from proxy.config.fields import ADDRESS
from proxy.config.findings import quoted
from proxy.config.settings import ProtocolName

PROGRAM = "email-oauth2-proxy"
_SERVER = re.compile(r"(?P<type>IMAP|POP|SMTP)-(?P<port>\d{1,9})")
_PROTOCOLS: dict[str, ProtocolName] = {"IMAP": "imap", "POP": "pop3", "SMTP": "smtp"}
_CACHED = frozenset(
    {
        "access_token",
        "access_token_expiry",
        "refresh_token",
        "token_salt",
        "token_iterations",
        "client_secret_encrypted",
        "last_activity",
    }
)
_NOTES = frozenset(("documentation", "format", "warning"))
_MAIL_HOSTS = ("office365.com", "office365.us", "outlook.com", "outlook.cn", "office.com", "office365.cn")
_LOCAL = ("127.0.0.1", "::1", "localhost")

_STANDS_IN_CONF_D = "a secret stands in conf.d as it is, in a file of mode 0600"
_OPTIONS: dict[str, tuple[bool, str]] = {  # whether it holds in another way, and how
    "delete_account_token_on_password_error": (True, "a wrong password never removes a token here"),
    "encrypt_client_secret_on_first_use": (False, f"{_STANDS_IN_CONF_D}; or write client_secret: {{file: PATH}}"),
    "use_login_password_as_client_credentials_secret": (
        False,
        "mail programs never hold the app's secret here; make one: mailferry app add NAME --client-secret-file FILE",
    ),
    "allow_catch_all_accounts": (True, "each login is named here: mailferry account add LOGIN"),
}
_SETTINGS: dict[str, tuple[bool, str]] = {
    "oauth2_scope": (True, "mailferry asks for IMAP, POP and SMTP together"),
    "oauth2_resource": (True, "mailferry asks for IMAP, POP and SMTP together"),
    "use_pkce": (True, "mailferry always uses it"),
    "redirect_listen_address": (False, "mailferry listens at the redirect address itself, or takes a pasted address"),
    "access_token": (False, "it lives for an hour; a new one is asked for"),
    "access_token_expiry": (False, "it goes with the access token"),
    "last_activity": (False, "mailferry notes this itself"),
}


def recognises(text: Text) -> bool:
    """Whether this is its configuration, or the cache file of one."""
    sections = read_ini(text.text).sections
    return OPTIONS in sections or any(
        _SERVER.fullmatch(name) or ("@" in name and section.settings.keys() & {"client_id", "token_url", "token_salt"})
        for name, section in sections.items()
    )


def read(texts: Sequence[Text]) -> Found:
    bench = Bench(PROGRAM)
    configurations = [(text.file, read_ini(text.text)) for text in texts]
    caches = [pair for pair in configurations if _is_cache(pair[1])]
    for file, ini in configurations:
        if (file, ini) not in caches:
            _Reading(bench, file, ini, [cache for _, cache in caches]).read()
    for file, ini in caches:
        _judge_cache(bench, file, ini)
    return bench.found()


def _is_cache(ini: Ini) -> bool:
    settings = [section.settings.keys() for section in ini.sections.values()]
    return bool(settings) and all(keys <= _CACHED for keys in settings) and any(settings)


def _judge_cache(bench: Bench, file: Path, ini: Ini) -> None:
    for section in ini.sections.values():
        end = max((setting.last_line for setting in section.settings.values()), default=section.line)
        spot = Spot(file, section.line, end, f"[{section.name}]")
        bench.otherwise(spot, "read together with the account's section in the configuration")
    _judge_strays(bench, file, ini)


def _judge_strays(bench: Bench, file: Path, ini: Ini) -> None:
    for stray in ini.strays:
        bench.not_taken(Spot(file, stray.line, stray.last_line, "line"), stray.problem)


class _Reading:
    """One configuration."""

    def __init__(self, bench: Bench, file: Path, ini: Ini, caches: Sequence[Ini]) -> None:
        self._bench = bench
        self._file = file
        self._ini = ini
        self._caches = caches
        self._values = Values(ini, caches)
        self._logins: set[str] = set()

    def read(self) -> None:
        for section in self._ini.sections.values():
            if server := _SERVER.fullmatch(section.name):
                self._read_server(section, _PROTOCOLS[server["type"]], int(server["port"]))
            elif section.name.startswith("@"):
                self._read_catch_all(section)
            elif "@" in section.name:
                self._read_account(section)
            elif section.name == OPTIONS:
                self._bench.otherwise(self._head(section), "each option for itself")
                self._judge_settings(section, _OPTIONS)
            elif section.name == DEFAULT:
                self._bench.otherwise(self._whole(section), "what the other sections do not say themselves")
            else:
                self._bench.not_taken(self._whole(section), "notes for the reader")
        for name in self._cached_alone():
            self._read_account(Section(name, 1))
        _judge_strays(self._bench, self._file, self._ini)

    def _cached_alone(self) -> list[str]:
        """Accounts that a catch-all section let in, and of which a cache file alone knows."""
        names = dict.fromkeys(name for cache in self._caches for name in cache.sections if "@" in name[1:])
        return [name for name in names if self._values.catch_all and name not in self._ini.sections]

    # Servers

    def _read_server(self, section: Section, protocol: ProtocolName, port: int) -> None:
        host = self._values.value(section, "server_address")
        if not any(host.casefold() == end or host.casefold().endswith(f".{end}") for end in _MAIL_HOSTS):
            why = f"{provider(host)}'s" if provider(host) else "not one of Microsoft's"
            self._bench.not_taken(self._whole(section), f"the server behind it, {quoted(host)}, is {why}")
            return
        if not 1 <= port <= 65_535:
            self._bench.not_taken(self._whole(section), f"{port} is no port")
            return
        files = (self._values.value(section, "local_certificate_path"), self._values.value(section, "local_key_path"))
        certificate = files if all(files) else None
        address = self._values.value(section, "local_address") or "::"
        kept = address if address in _LOCAL else "localhost"
        self._bench.listeners[FoundListener(protocol, kept, port, certificate)] = None
        self._bench.taken(self._head(section), f"a listener for {protocol}, port {port}: its lines are shown")
        self._judge_settings(
            section,
            {
                "server_address": (True, "mailferry knows Microsoft's servers by the app's cloud"),
                "server_port": (True, "mailferry knows Microsoft's ports"),
                "server_starttls": (True, "mailferry knows how each server wants TLS"),
                "starttls": (True, "mailferry knows how each server wants TLS"),
                "local_starttls": (True, "tls: auto takes plain text, STARTTLS and TLS on one port"),
                **({"local_address": (True, _PLAIN_STAYS_LOCAL)} if kept != address else {}),
            },
            {
                **({} if kept != address else {"local_address": f"address: {kept}"}),
                **dict.fromkeys(("local_certificate_path", "local_key_path") if certificate else (), "certificate"),
            },
        )
        if "local_address" not in section.settings:
            self._bench.otherwise(self._head(section), _PLAIN_STAYS_LOCAL)

    # Accounts

    def _read_catch_all(self, section: Section) -> None:
        if not self._values.catch_all:
            self._bench.not_taken(
                self._whole(section), "allow_catch_all_accounts is off, so that program does not use it either"
            )
            return
        chosen = self._values.choose(section)
        if chosen.app is None:
            self._bench.not_taken(self._whole(section), chosen.problem)
            return
        self._bench.apps[chosen.app] = None
        whose = f"everybody at {section.name[1:]}" if section.name != "@" else "everybody"
        self._bench.otherwise(
            self._head(section), f"the app is taken; {whose} who has no section: mailferry account add LOGIN, for each"
        )
        self._judge_account_settings(section, chosen)

    def _read_account(self, section: Section) -> None:
        login = section.name
        if not ADDRESS.fullmatch(login) or not login.isprintable():
            self._bench.not_taken(self._whole(section), "the login is no mail address")
            return
        if login.casefold() in self._logins:
            self._bench.not_taken(self._whole(section), "this login stands above already, in another case")
            return
        chosen = self._values.choose(section)
        if chosen.app is None:
            self._bench.not_taken(self._whole(section), chosen.problem)
            return
        self._logins.add(login.casefold())
        account = FoundAccount(self._file, section.line, login, chosen.app, self._values.protocols(section))
        account = replace(
            account,
            refresh_token=self._values.sealed(section, "refresh_token"),
            proof=self._values.sealed(section, "access_token"),
            client_secret=None if chosen.app.client_secret else self._values.sealed(section, "client_secret_encrypted"),
        )
        self._bench.accounts.append(account)
        self._bench.apps[chosen.app] = None
        (self._bench.otherwise if chosen.remark else self._bench.taken)(
            self._head(section), chosen.remark or f"account {login}"
        )
        self._judge_account_settings(section, chosen)

    # Verdicts

    def _judge_account_settings(self, section: Section, chosen: Chosen) -> None:
        app = cast("FoundApp", chosen.app)
        sealed = "with the mail program's password"
        taken = {
            "token_url": f"account_types: {app.account_types}" if not app.authority else f"authority: {app.authority}",
            "permission_url": "the same tenant",
            "client_id": "application_id",
            "refresh_token": f"opened {sealed}, and handed to the store",
            "token_salt": "opens the tokens",
            "token_iterations": "opens the tokens",
        }
        others = dict(_SETTINGS)
        others["oauth2_flow"] = self._flow_verdict(section)
        others["client_secret"] = (False, "it is empty, or still the sample's placeholder")
        if app.client_secret:
            taken["client_secret"] = _STANDS_IN_CONF_D
            others["client_secret_encrypted"] = (False, "the secret stands beside it in clear")
        else:
            taken["client_secret_encrypted"] = f"opened {sealed}"
        if app.redirect_uri:
            taken["redirect_uri"] = f"redirect_uri: {app.redirect_uri}"
        others["redirect_uri"] = (True, "http://localhost, which Entra takes with any port")
        for key in ("jwt_certificate_path", "jwt_key_path"):
            if app.certificate:
                taken[key] = "certificate"
            others[key] = (False, "a secret stands beside it, or the other of the two is missing")
        if self._values.protocols(section):
            taken["oauth2_scope"] = f"protocols: {', '.join(self._values.protocols(section))}"
        self._judge_settings(section, others, taken)

    def _flow_verdict(self, section: Section) -> tuple[bool, str]:
        match self._values.inherited(section, "oauth2_flow"):
            case "client_credentials" if not self._values.inherited(section, "permission_url"):
                return True, "flow: app_only"
            case "password":
                return False, _SIGN_IN_ONCE
            case "device":
                return True, "mailferry sign-in LOGIN --device"
            case _:
                return True, "flow: delegated; a person signs in"

    def _judge_settings(
        self, section: Section, others: dict[str, tuple[bool, str]], taken: dict[str, str] | None = None
    ) -> None:
        """A verdict for each setting: what is in neither table, mailferry does not know."""
        for key, setting in section.settings.items():
            spot = self._spot(setting)
            if key in _NOTES:
                self._bench.not_taken(spot, "notes for the reader")
            elif key in others and key not in (taken or {}):
                holds, text = others[key]
                off = section.name == OPTIONS and setting.value.lower() in ("0", "no", "false", "off")
                if off and not holds:
                    text = "it is off"
                (self._bench.otherwise if holds else self._bench.not_taken)(spot, text)
            elif taken and key in taken:
                self._bench.taken(spot, taken[key])
            else:
                self._bench.not_taken(spot, "mailferry has nothing like it")

    def _head(self, section: Section) -> Spot:
        return Spot(self._file, section.line, section.line, f"[{section.name}]")

    def _whole(self, section: Section) -> Spot:
        last = max((setting.last_line for setting in section.settings.values()), default=section.line)
        return Spot(self._file, section.line, last, f"[{section.name}]")

    def _spot(self, setting: Setting) -> Spot:
        return Spot(self._file, setting.line, setting.last_line, setting.key)


_PLAIN_STAYS_LOCAL = (
    "it took passwords in plain text from every network; here address: localhost, or name TLS or the devices "
    "(require_tls, allow_from) in the configuration"
)
_SIGN_IN_ONCE = (
    "Microsoft's own password is not sent to anybody here, and MFA stops it: the person signs in once instead"
)
