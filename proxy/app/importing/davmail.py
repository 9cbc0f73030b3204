"""DavMail: its `davmail.properties`, and the file of tokens that `davmail.oauth.tokenFilePath` names.

DavMail speaks EWS or Graph with Exchange. What carries over is an app registration of the person's own, the ports, and
whose tokens there are. Tokens are in clear, or sealed with the mail program's password; Microsoft redeems them for
IMAP, POP and SMTP only if the app has those permissions too. Called by `readers.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from proxy.app.importing.endpoints import Authority, is_guid, read_endpoint
from proxy.app.importing.found import Bench, Found, FoundAccount, FoundApp, FoundListener, Sealed, Spot, Text
from proxy.app.importing.properties import Property, read_properties
from proxy.config.fields import ADDRESS
from proxy.config.findings import quoted
from proxy.config.settings import ProtocolName

PROGRAM = "DavMail"
ITERATIONS = 10_000
FINGERPRINT = "davmailgateway!&"  # DavMail's own salt, where a person gave none; it takes 16 octets
OWN_CLIENTS = {  # apps that belong to others: nobody can add permissions to them, or look at them in the portal
    "facd6cff-a294-4415-b59f-c5b01937d7bd": "DavMail's own",
    "d3590ed6-52b3-4102-aeff-aad2292ab01c": "Microsoft Office's",
}
_PREFIX = "davmail."
_TOKEN = re.compile(r"davmail\.oauth\.(?P<login>.+)\.refreshToken")
_PORTS: dict[str, ProtocolName] = {
    "davmail.imapPort": "imap",
    "davmail.popPort": "pop3",
    "davmail.smtpPort": "smtp",
}
_MODES = ("O365EWS", "O365Graph", "O365Modern", "O365Interactive", "O365Manual", "O365DeviceCode", "O365", "Auto")
_LOGIN_HOST = "https://login.microsoftonline."
_NO_APP = "it is {}: register an app of your own, then run this again with --app NAME"
_CALENDARS = "mailferry carries mail alone: keep DavMail for calendars and address books"
_JAVA_STORE = "a Java key store: write certificate: {file: PEM, key: PEM} for the listener"
_PROXY = "set HTTPS_PROXY in the environment of mailferry"
_OTHERS: dict[str, tuple[bool, str]] = {  # by the key, or by how it begins
    "davmail.authentication": (True, "mailferry sign-in LOGIN, with --browser, --device or --paste"),
    "davmail.server": (True, "mailferry is always a server; it has a page beside"),
    "davmail.url": (True, "mailferry knows Exchange Online's mail servers"),
    "davmail.oauth.scope": (True, "mailferry asks for IMAP, POP and SMTP; give the app these permissions"),
    "davmail.oauth.persistToken": (True, "mailferry keeps tokens, sealed"),
    "davmail.oauth.fingerprint": (True, "it helps to open the tokens"),
    "davmail.oauth.tokenFilePath": (True, "the tokens there are read too"),
    "davmail.enableProxy": (False, _PROXY),
    "davmail.useSystemProxies": (False, _PROXY),
    "davmail.proxy": (False, _PROXY),
    "davmail.noProxyFor": (False, "set NO_PROXY in the environment of mailferry"),
    "davmail.ssl.nosecure": (True, "tls: auto takes plain text, STARTTLS and TLS on one port"),
    "davmail.ssl.": (False, _JAVA_STORE),
    "davmail.caldav": (False, _CALENDARS),
    "davmail.carddav": (False, _CALENDARS),
    "davmail.ldapPort": (False, _CALENDARS),
    "davmail.logFile": (True, "mailferry logs to standard error: the journal, under systemd"),
    "davmail.userWhiteList": (True, "only accounts that are named here may log in"),
    "davmail.clientSoTimeout": (True, "mailferry ends idle connections as the standards say"),
    "davmail.imapIdleDelay": (True, "Exchange's own IDLE is passed through"),
    "davmail.keepDelay": (False, "Exchange's own POP3 answers now: it deletes what the mail program deletes"),
    "davmail.sentKeepDelay": (False, "Exchange's own POP3 answers now"),
    "davmail.popMarkReadOnRetr": (False, "Exchange's own POP3 answers now"),
    "davmail.smtpSaveInSent": (True, "Exchange keeps a copy of what is sent by SMTP itself"),
    "log4j.": (True, "log, in the configuration"),
}


def recognises(text: Text) -> bool:
    """Whether this is its configuration."""
    return any(each.key.startswith(_PREFIX) for each in read_properties(text.text))


def refers_to(text: Text) -> list[str]:
    """The file that holds the tokens."""
    properties = read_properties(text.text)
    return [each.value for each in properties if each.key == "davmail.oauth.tokenFilePath" and each.value]


def read(texts: Sequence[Text]) -> Found:
    bench = Bench(PROGRAM)
    mains = [text for text in texts if recognises(text)]
    others = [text for text in texts if text not in mains]
    for text in mains:
        _Reading(bench, text.file, read_properties(text.text), others).read()
    return bench.found()


class _Reading:
    """One configuration, and the token files beside it."""

    def __init__(self, bench: Bench, file: Path, properties: Sequence[Property], tokens: Sequence[Text]) -> None:
        self._bench = bench
        self._file = file
        self._properties = properties
        self._tokens = tokens
        self._values = {each.key: each.value for each in properties}
        self._logins: set[str] = set()

    def read(self) -> None:
        authority = self._authority()
        app = self._choose(authority)
        if app is not None:
            self._bench.apps[app] = None
        for each in self._properties:
            spot = Spot(self._file, each.line, each.last_line, each.key)
            if token := _TOKEN.fullmatch(each.key):
                self._take_token(spot, token["login"], each.value, app)
            elif each.key in _PORTS:
                self._take_port(spot, _PORTS[each.key], each.value)
            else:
                self._judge(spot, each, authority, app)
        for text in self._tokens:
            for each in read_properties(text.text):
                spot = Spot(text.file, each.line, each.last_line, each.key)
                self._take_token(spot, each.key, each.value, app)

    def _authority(self) -> Authority | str:
        base = self._values.get("davmail.loginUrl") or _LOGIN_HOST + (self._values.get("davmail.tld") or "com")
        tenant = self._values.get("davmail.oauth.tenantId") or "common"
        return read_endpoint(f"{base.rstrip('/')}/{tenant}/oauth2/v2.0/token")

    def _choose(self, authority: Authority | str) -> FoundApp | None:
        """The person's own app, if there is one."""
        client_id = self._values.get("davmail.oauth.clientId", "").lower()
        if isinstance(authority, str) or not is_guid(client_id) or client_id in OWN_CLIENTS:
            return None
        return FoundApp(client_id, authority.account_types, authority.cloud.value, authority.own)

    def _take_token(self, spot: Spot, login: str, value: str, app: FoundApp | None) -> None:
        if not ADDRESS.fullmatch(login) or not login.isprintable():
            self._bench.not_taken(spot, "names no mail address")
            return
        if not value:
            self._bench.not_taken(spot, "there is no token")
            return
        if login.casefold() in self._logins:
            self._bench.not_taken(spot, f"another line holds the token of {login} already")
            return
        self._logins.add(login.casefold())
        token = self._sealed(value) if app else None
        self._bench.accounts.append(FoundAccount(spot.file, spot.line, login, app, (), token))
        if app is None:
            client_id = self._values.get("davmail.oauth.clientId", "").lower()
            whose = OWN_CLIENTS.get(client_id, "DavMail's own" if not client_id else "no application id of Microsoft's")
            self._bench.otherwise(spot, f"account {login}, without the token: {_NO_APP.format(whose)}")
        else:
            self._bench.taken(spot, f"account {login}; its token is good if the app may use IMAP, POP and SMTP")

    def _sealed(self, value: str) -> Sealed | None:
        if not value.startswith("{AES}"):
            return Sealed("clear", value)
        salt = (self._values.get("davmail.oauth.fingerprint") or FINGERPRINT).encode()
        return Sealed("aes", value.removeprefix("{AES}"), salt, (ITERATIONS,))

    def _take_port(self, spot: Spot, protocol: ProtocolName, value: str) -> None:
        if not (value.isascii() and value.isdigit() and len(value) < 6 and 1 <= int(value) <= 65_535):
            self._bench.not_taken(spot, "names no port: switched off" if not value else f"{quoted(value)} is no port")
            return
        self._bench.listeners[FoundListener(protocol, "localhost", int(value))] = None
        self._bench.taken(spot, f"a listener for {protocol}, port {value}: its lines are shown")

    def _judge(self, spot: Spot, each: Property, authority: Authority | str, app: FoundApp | None) -> None:
        bench, value = self._bench, each.value
        match each.key:
            case "davmail.oauth.clientId" if app is not None:
                bench.taken(spot, "application_id; give the app the permissions of IMAP, POP and SMTP too")
            case "davmail.oauth.clientId":
                whose = OWN_CLIENTS.get(value.lower(), "no application id")
                bench.not_taken(spot, _NO_APP.format(whose) if value else "it is empty")
            case "davmail.oauth.tenantId" | "davmail.loginUrl" | "davmail.tld" if isinstance(authority, str):
                bench.not_taken(spot, authority)
            case "davmail.oauth.tenantId" | "davmail.loginUrl" | "davmail.tld" if app is not None:
                bench.taken(spot, f"account_types: {app.account_types}, cloud: {app.cloud}")
            case "davmail.oauth.redirectUri":
                bench.otherwise(spot, "http://localhost: add it to the app, as platform Mobile and desktop")
            case "davmail.mode" if value in _MODES:
                bench.otherwise(spot, "IMAP, POP3 and SMTP: switch them on for the mailbox")
            case "davmail.mode":
                bench.not_taken(
                    spot, f"{quoted(value)} is an Exchange of one's own, and mailferry is for Exchange Online"
                )
            case "davmail.allowRemote" if value.casefold() == "true":
                text = "the listeners stay on this machine; for a network: address, and TLS or allow_from"
                bench.not_taken(spot, text)
            case "davmail.bindAddress" if value:
                bench.not_taken(
                    spot, "the listeners stay on this machine; for a network: address, and TLS or allow_from"
                )
            case "davmail.allowRemote" | "davmail.bindAddress":
                bench.otherwise(spot, "address: localhost")
            case _ if not value:
                bench.not_taken(spot, "it is empty")
            case _:
                known = (rule for start, rule in _OTHERS.items() if each.key.startswith(start))
                holds, text = next(known, (False, "mailferry has nothing like it"))
                (bench.otherwise if holds else bench.not_taken)(spot, text)
