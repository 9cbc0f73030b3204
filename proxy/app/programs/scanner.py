"""A scanner, printer or other device in the corridor, which sends by SMTP (CLIENTS 5.2)."""

from __future__ import annotations

from proxy.app.programs.connection import Connection, Entrance, Security, Unreachable
from proxy.app.programs.guide import Guide, Needs, Part, Step

_KNOWS = (Security.STARTTLS, Security.TLS, Security.PLAIN)
_ENCRYPTION = {
    Security.PLAIN: "none",
    Security.STARTTLS: "STARTTLS (some call it TLS, or “if available”)",
    Security.TLS: "SSL/TLS (some call it SMTPS, or “always”)",
}
_LISTENER = """\
listeners:                        # beside those that stand there; or the defaults, which this list replaces
  - protocol: smtp
    address: 192.168.1.10         # this machine's own address on the network
    port: 1587
    tls: auto
    require_tls: true             # a device without TLS: README, "Scanners, printers and other devices"
    legacy_tls: true              # for devices that know TLS 1.0 or 1.1 at best
    allow_from: [192.168.1.20/32] # the device's address
"""


def scanner(connection: Connection) -> Guide:
    """Raises: Unreachable: this account may not send."""
    if "smtp" not in connection.entrances and connection.device is None:
        raise Unreachable(connection.missing.get("smtp") or "No listener serves SMTP.")
    if connection.device is None:
        return Guide("A scanner or another device", (_no_listener(),), notes=connection.notes)
    return Guide("A scanner or another device", (_by_values(connection, connection.device),), notes=connection.notes)


def _no_listener() -> Part:
    return Part(
        "First, a listener that the device reaches",
        (
            Step(
                "Every SMTP listener of this configuration is for this machine alone. Add one with this machine's "
                "address on the network and the device's, then: mailferry reload; and ask for these settings again.",
                code=_LISTENER.rstrip("\n"),
            ),
        ),
    )


def _by_values(connection: Connection, device: Entrance) -> Part:
    door = device.door(_KNOWS, private=True)
    if door is None:
        raise Unreachable(f"The SMTP listener on {device.listens} offers nothing that a device could use.")
    values = [
        ("SMTP server", door.host),
        ("Port", str(door.port)),
        ("Encryption", _ENCRYPTION[door.security]),
        ("SMTP authentication", "on, LOGIN or PLAIN" if device.login_needed else "off"),
    ]
    if device.login_needed:
        values += [("User name", connection.login), ("Password", "one of its own, see the first step")]
    values += [
        ("From (sender address)", connection.mailbox),
        ("POP before SMTP", "off"),
    ]
    steps = [
        Step("In the device's own web page, under e-mail, SMTP or “scan to e-mail”, fill in:", tuple(values)),
        Step(
            "The sender must be this mailbox, or one that it may send as: Exchange refuses others. Some devices write "
            "an address of their own there until it is changed."
        ),
    ]
    if device.login_needed:
        steps.insert(
            0,
            Step(
                "Give the device a password of its own, which is good for sending alone:", needs=Needs.DEVICE_PASSWORD
            ),
        )
    if door.security is not Security.PLAIN and device.local_authority:
        steps.append(
            Step(
                "If the device checks certificates, import this machine's there, or switch its check off.",
                needs=Needs.CERTIFICATE,
            )
        )
    return Part("On the device", tuple(steps))
