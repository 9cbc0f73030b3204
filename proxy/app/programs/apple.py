"""Apple Mail: a configuration profile, which brings the account and, where needed, the certificate (CLIENTS 5.5).

Its keys can say TLS or none, and no STARTTLS; newer versions keep no account without encryption, so TLS comes first.
"""

from __future__ import annotations

import plistlib
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from proxy.app.programs.connection import NAMES, Connection, Door, Security
from proxy.app.programs.guide import File, Guide, Needs, Part, Step

_PROGRAM = "Apple Mail"
_KNOWS = (Security.TLS, Security.PLAIN)
_OURS = uuid.UUID("c3b1a6a6-3a6c-5d0e-9a55-6d61696c6665")
"""Our own name space: an account always gets the same identifiers, so that a new profile replaces the old one."""


def apple(connection: Connection) -> Guide:
    """Raises: Unreachable."""
    connection = replace(connection, private=True)
    incoming = connection.incoming(_PROGRAM, _KNOWS)
    smtp = connection.find("smtp", _PROGRAM, _KNOWS)
    file = File(
        f"{connection.file_stem}.mobileconfig", "application/x-apple-aspen-config", _profile(connection, incoming, smtp)
    )
    trusted = connection.trusts(incoming, smtp) is not None
    by_file = [
        Step("Open the file on the Mac with a double click.", file=file.name),
        Step(
            "Open System Settings > General > Device Management (before macOS 13: System Preferences > Profiles), "
            "choose the profile and install it. macOS says that it is not signed: it was made here. It asks for the "
            "local password; type it for incoming and outgoing mail.",
        ),
    ]
    if trusted:
        by_file.append(
            Step(
                "The profile brings this machine's certificate along. If Mail still warns of it, open Keychain Access, "
                "find “mailferry on this machine”, and under Trust choose Always Trust."
            )
        )
    by_hand = [
        Step("Open Mail > Add Account > Other Mail Account.", (("Email Address", connection.mailbox),)),
        Step("Mail cannot find the account by itself, and then asks:", _server_values(connection, incoming, smtp)),
        Step(
            "Mail > Settings > Accounts > Server Settings: take away the tick at Automatically manage connection "
            "settings, for both servers, and set:",
            _port_values(incoming, smtp),
        ),
    ]
    if Security.PLAIN in {door.security for door in (incoming, smtp) if door is not None}:
        by_hand.append(
            Step(
                "Without TLS, tick Allow insecure authentication there, too. Newer versions refuse it: use `tls: auto`."
            )
        )
    if trusted:
        by_hand.insert(0, Step("First have the Mac trust this machine's certificate.", needs=Needs.CERTIFICATE))
    return Guide(
        _PROGRAM,
        (Part("By a configuration profile", tuple(by_file)), Part("By hand", tuple(by_hand))),
        (file,),
        (
            *([] if smtp else [connection.missing.get("smtp") or "It cannot send by any listener."]),
            "mailferry runs on the Mac itself, or on a machine that the iPhone or iPad reaches: then choose that name.",
            *connection.trust_notes(incoming, smtp),
            *connection.notes,
        ),
    )


def _server_values(connection: Connection, incoming: Door, smtp: Door | None) -> tuple[tuple[str, str], ...]:
    return (
        ("User Name", connection.login),
        ("Password", "the local password"),
        ("Account Type", NAMES[incoming.protocol].replace("POP3", "POP")),
        ("Incoming Mail Server", incoming.host),
        *((("Outgoing Mail Server", smtp.host),) if smtp else ()),
    )


def _port_values(incoming: Door, smtp: Door | None) -> tuple[tuple[str, str], ...]:
    values: list[tuple[str, str]] = []
    for name, door in (("Incoming", incoming), ("Outgoing", smtp)):
        if door is not None:
            values += [
                (f"{name}: port", str(door.port)),
                (f"{name}: use TLS/SSL", "yes" if door.security is Security.TLS else "no"),
                (f"{name}: authentication", "Password"),
            ]
    return tuple(values)


def _profile(connection: Connection, incoming: Door, smtp: Door | None) -> str:
    payloads = [_account(connection, incoming, smtp)]
    authority = connection.trusts(incoming, smtp)
    if authority is not None:
        payloads.append(
            {
                **_payload("com.apple.security.root", f"authority/{authority.sha256}", "The certificate of mailferry"),
                "PayloadContent": ssl.PEM_cert_to_DER_cert(authority.pem),
                "PayloadCertificateFileName": "mailferry.cer",
            }
        )
    profile = {
        **_payload("Configuration", f"profile/{connection.login}", f"{connection.mailbox} through mailferry"),
        "PayloadDescription": "A mail account that reaches Microsoft through mailferry.",
        "PayloadRemovalDisallowed": False,
        "PayloadContent": payloads,
    }
    return plistlib.dumps(profile).decode()


def _account(connection: Connection, incoming: Door, smtp: Door | None) -> Mapping[str, Any]:
    account = {
        **_payload("com.apple.mail.managed", f"mail/{connection.login}", connection.mailbox),
        "EmailAccountType": "EmailTypeIMAP" if incoming.protocol == "imap" else "EmailTypePOP",
        "EmailAccountDescription": connection.mailbox,
        "EmailAddress": connection.mailbox,
        **_server("Incoming", incoming, connection.login),
    }
    if smtp is not None:
        account |= {**_server("Outgoing", smtp, connection.login), "OutgoingPasswordSameAsIncomingPassword": True}
    return account


def _server(which: str, door: Door, login: str) -> Mapping[str, Any]:
    return {
        f"{which}MailServerHostName": door.host,
        f"{which}MailServerPortNumber": door.port,
        f"{which}MailServerUseSSL": door.security is Security.TLS,
        f"{which}MailServerAuthentication": "EmailAuthPassword",
        f"{which}MailServerUsername": login,
    }


def _payload(kind: str, name: str, shown: str) -> dict[str, Any]:
    identity = uuid.uuid5(_OURS, name)
    return {
        "PayloadType": kind,
        "PayloadVersion": 1,
        "PayloadIdentifier": f"mailferry.{identity}",
        "PayloadUUID": str(identity).upper(),
        "PayloadDisplayName": shown,
    }
