"""The facts themselves: as JSON for scripts, and as a sheet for any program that is not in the list."""

from __future__ import annotations

import json
from typing import Any

from proxy.app.programs.connection import NAMES, Connection, Door, Security, Unreachable
from proxy.app.programs.guide import File, Guide, Needs, Part, Step
from proxy.config.settings import PROTOCOL_NAMES

_ENCRYPTION = {
    Security.PLAIN: "none (it stays on this machine)",
    Security.STARTTLS: "STARTTLS",
    Security.TLS: "SSL/TLS",
}


def as_json(connection: Connection) -> Guide:
    text = json.dumps(facts(connection), indent=2, ensure_ascii=False) + "\n"
    return Guide("The facts, for scripts", files=(File("settings.json", "application/json", text),), plain=True)


def facts(connection: Connection) -> dict[str, Any]:
    """Keys stay as they are: scripts read them."""
    authority = connection.authority
    return {
        "login": connection.login,
        "mailbox": connection.mailbox,
        **{protocol: _entrance(connection, protocol) for protocol in PROTOCOL_NAMES},
        "missing": dict(connection.missing),
        "certificate": {"file": str(authority.file), "sha256": authority.sha256, "expires": authority.expires}
        if authority
        else None,
        "page": connection.page or None,
        "notes": list(connection.notes),
    }


def sheet(connection: Connection) -> Guide:
    """One page with everything, for paper. Raises: Unreachable: there is nothing to say."""
    steps = [_protocol_step(door) for name in PROTOCOL_NAMES if (door := connection.find(name, "a mail program"))]
    if not steps:
        raise Unreachable("; ".join(connection.missing.values()) or "No listener serves mail programs.")
    who = Step(
        "Whoever sets up a mail program types:",
        (
            ("E-mail address", connection.mailbox),
            ("User name", connection.login),
            ("Password", "the local password: it was shown once, when the account was made"),
            ("Authentication", "password (PLAIN or LOGIN); no SPA, no NTLM, no OAuth2"),
        ),
    )
    parts = [Part("Account", (who,)), Part("Servers", tuple(steps))]
    if connection.authority is not None:
        parts.append(
            Part(
                "Certificate, where a connection is encrypted",
                (
                    Step(
                        "Trust the local authority once; its fingerprint:",
                        (("SHA-256", connection.authority.sha256), ("Expires", connection.authority.expires)),
                        needs=Needs.CERTIFICATE,
                    ),
                ),
            )
        )
    parts.append(
        Part(
            "Two habits",
            (
                Step(
                    "Let the program keep no copy of sent mail: Exchange does, and a second one would stand there "
                    "twice."
                ),
                Step("Leave the root folder (IMAP path prefix) empty."),
            ),
        )
    )
    return Guide("Settings for any mail program", tuple(parts), notes=(*connection.missing.values(), *connection.notes))


def _protocol_step(door: Door) -> Step:
    return Step(
        f"{NAMES[door.protocol]}, {'to send' if door.protocol == 'smtp' else 'to read'}:",
        (("Server", door.host), ("Port", str(door.port)), ("Encryption", _ENCRYPTION[door.security])),
    )


def _entrance(connection: Connection, protocol: str) -> dict[str, Any] | None:
    entrance = connection.entrances.get(protocol)
    door = connection.find(protocol, "a mail program")
    if entrance is None or door is None:
        return None
    return {
        "host": door.host,
        "port": door.port,
        "security": door.security.value,
        "offers": [{"security": each.value, "host": _host(entrance, each)} for each in entrance.offers],
        "authentication": ["PLAIN", "LOGIN"],
    }


def _host(entrance: Any, security: Security) -> str:
    return str(entrance.host if security is Security.PLAIN else entrance.tls_host)
