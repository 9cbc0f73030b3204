"""Outlook Express and Windows (Live) Mail: an account file (.iaf), which both import, and steps.

The file is a list of numbered fields, little-endian: number, length, value. The numbers are those that Outlook Express
itself writes. It can hold a password; ours never does.
"""

from __future__ import annotations

import struct

from proxy.app.programs.connection import NAMES, Connection, Door, Security, Unreachable
from proxy.app.programs.guide import File, Guide, Needs, Part, Step

_PROGRAM = "Outlook Express"
_KNOWS = (Security.PLAIN, Security.TLS)  # STARTTLS it knows on port 25 alone (CLIENTS 4)
HEADER = bytes.fromhex("664d4149 00000500 01000000")
CODE_PAGE = "cp1252"
SAME_AS_INCOMING = 2
TIMEOUT_S = 120
NUMBERS = {
    "AccountName": 305464304,
    "ConnectionType": 305726441,
    "IMAPServer": 311952368,
    "IMAPUserName": 312017904,
    "IMAPAuthUseSPA": 312214517,
    "IMAPPort": 312280041,
    "IMAPSecureConnection": 312345589,
    "IMAPTimeout": 312411113,
    "IMAPRootFolder": 312476656,
    "IMAPStoreSpecialFolders": 313000949,
    "POP3Server": 331613168,
    "POP3UserName": 331678704,
    "POP3AuthUseSPA": 331875317,
    "POP3Port": 331940841,
    "POP3SecureConnection": 332006389,
    "POP3Timeout": 332071913,
    "POP3LeaveMailOnServer": 332137461,
    "SMTPServer": 338166768,
    "SMTPAuthMethod": 338428905,
    "SMTPPort": 338494441,
    "SMTPSecureConnection": 338559989,
    "SMTPTimeout": 338625513,
    "SMTPDisplayName": 338691056,
    "SMTPEmailAddress": 338822128,
}


def outlook_express(connection: Connection) -> Guide:
    """Raises: Unreachable."""
    incoming = connection.incoming(_PROGRAM, _KNOWS)
    smtp = connection.find("smtp", _PROGRAM, _KNOWS)
    file = File(f"{connection.file_stem}.iaf", "application/octet-stream", account_file(connection, incoming, smtp))
    by_file = (
        Step("Put the file on the Windows machine.", file=file.name),
        Step(
            "Tools > Accounts (in Windows Live Mail: File > Options > E-mail accounts) > Import, and choose the file."
        ),
        Step(f"At the first connection type the local password of {connection.login}, and tick Remember password."),
    )
    by_hand = [
        Step(
            "Tools > Accounts > Add > Mail:",
            (
                ("E-mail address", connection.mailbox),
                ("My incoming mail server is a", NAMES[incoming.protocol]),
                ("Incoming mail server", incoming.host),
                ("Outgoing mail (SMTP) server", smtp.host if smtp else incoming.host),
                ("Account name", connection.login),
                ("Log on using Secure Password Authentication (SPA)", "no"),
            ),
        ),
        Step("Properties > Servers:", (("My server requires authentication", "yes"),)),
        Step("Properties > Advanced:", tuple(_advanced(incoming, smtp))),
    ]
    if incoming.protocol == "imap":
        by_hand.append(
            Step(
                "Properties > IMAP: leave Root folder path empty, and take away the tick at Store special folders on "
                "IMAP server: Exchange keeps sent mail itself."
            )
        )
    parts = [Part("By a file", by_file), Part("By hand", tuple(by_hand))]
    if connection.trusts(incoming, smtp) is not None:
        trust = Step("Have Windows trust this machine's certificate.", needs=Needs.CERTIFICATE)
        parts.insert(0, Part("First, trust this machine's certificate", (trust,)))
    notes = () if smtp else (connection.missing.get("smtp") or "No SMTP listener fits it: it can read, and not send.",)
    return Guide(
        "Outlook Express and Windows Live Mail",
        tuple(parts),
        (file,),
        (*notes, *connection.trust_notes(incoming, smtp), *connection.notes),
    )


def account_file(connection: Connection, incoming: Door, smtp: Door | None) -> bytes:
    """Raises: Unreachable: a name has letters that Outlook Express does not know."""
    name = "IMAP" if incoming.protocol == "imap" else "POP3"
    fields: dict[str, str | int] = {
        "AccountName": connection.mailbox,
        "ConnectionType": 0,  # by the network, as it is
        f"{name}Server": incoming.host,
        f"{name}UserName": connection.login,
        f"{name}AuthUseSPA": 0,
        f"{name}Port": incoming.port,
        f"{name}SecureConnection": int(incoming.security is Security.TLS),
        f"{name}Timeout": TIMEOUT_S,
    }
    fields |= {"IMAPRootFolder": "", "IMAPStoreSpecialFolders": 0} if name == "IMAP" else {"POP3LeaveMailOnServer": 1}
    if smtp is not None:
        fields |= {
            "SMTPServer": smtp.host,
            "SMTPAuthMethod": SAME_AS_INCOMING,
            "SMTPPort": smtp.port,
            "SMTPSecureConnection": int(smtp.security is Security.TLS),
            "SMTPTimeout": TIMEOUT_S,
            "SMTPDisplayName": connection.mailbox,
            "SMTPEmailAddress": connection.mailbox,
        }
    return HEADER + b"".join(_field(NUMBERS[each], value) for each, value in fields.items())


def _advanced(incoming: Door, smtp: Door | None) -> list[tuple[str, str]]:
    values = []
    for door, which in ((smtp, "Outgoing mail (SMTP)"), (incoming, f"Incoming mail ({NAMES[incoming.protocol]})")):
        if door is not None:
            values += [
                (which, str(door.port)),
                (f"{which}: secure connection (SSL)", "yes" if door.security is Security.TLS else "no"),
            ]
    return [*values, ("Server Timeouts", "long: two minutes or more")]


def _field(number: int, value: str | int) -> bytes:
    if isinstance(value, int):
        octets = struct.pack("<I", value)
    else:
        try:
            octets = value.encode(CODE_PAGE) + b"\0"
        except UnicodeEncodeError:
            raise Unreachable(
                f"Outlook Express has no letters for {value!r}: give the account a login without them."
            ) from None
    return struct.pack("<II", number, len(octets)) + octets
