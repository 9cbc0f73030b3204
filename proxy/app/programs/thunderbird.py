"""Thunderbird: steps, and the file by which it sets itself up (CLIENTS 5.3)."""

from __future__ import annotations

from proxy.app.programs.connection import NAMES, Connection, Security, Unreachable
from proxy.app.programs.fill import fill
from proxy.app.programs.guide import File, Guide, Needs, Part, Step
from proxy.config.settings import PROTOCOL_NAMES

AUTOCONFIG_PATH = "/mail/config-v1.1.xml"
WHOEVER_ASKS = "%EMAILADDRESS%"
"""Thunderbird puts in the address that the person typed."""
_SECURITY = {Security.PLAIN: "None", Security.STARTTLS: "STARTTLS", Security.TLS: "SSL/TLS"}
_PROGRAM = "Thunderbird"


def thunderbird(connection: Connection) -> Guide:
    """Raises: Unreachable."""
    incoming = connection.incoming(_PROGRAM)
    smtp = connection.find("smtp", _PROGRAM)
    hand = [
        Step(
            "Open Account Settings > Account Actions > Add Mail Account. Type your name, the address and the local "
            "password, then choose Configure manually at once: otherwise Thunderbird finds Microsoft's own settings, "
            "and asks for a sign-in of its own.",
            (("Email address", connection.mailbox),),
        ),
        Step(
            "Incoming server:",
            (
                ("Protocol", NAMES[incoming.protocol]),
                ("Hostname", incoming.host),
                ("Port", str(incoming.port)),
                ("Connection security", _SECURITY[incoming.security]),
                ("Authentication method", "Normal password"),
                ("Username", connection.login),
            ),
        ),
    ]
    if smtp is not None:
        hand.append(
            Step(
                "Outgoing server:",
                (
                    ("Hostname", smtp.host),
                    ("Port", str(smtp.port)),
                    ("Connection security", _SECURITY[smtp.security]),
                    ("Authentication method", "Normal password"),
                    ("Username", connection.login),
                ),
            )
        )
    hand += [
        Step(
            "Choose Re-test, then Done. Thunderbird warns of a connection without encryption: it stays on this machine."
        )
        if Security.PLAIN in {door.security for door in (incoming, smtp) if door}
        else Step("Choose Re-test, then Done."),
        Step(
            "Account Settings > Copies & Folders: take away the tick at Place a copy in. Exchange keeps what is sent "
            "by itself, and a second copy would stand there twice."
        ),
    ]
    parts = [Part("By hand", tuple(hand))]
    if connection.trusts(incoming, smtp):
        trust = Step(
            "Settings > Privacy & Security > Certificates > Manage Certificates > Authorities > Import: choose the "
            "certificate's file, and tick Trust this CA to identify websites, which counts for mail too.",
            needs=Needs.CERTIFICATE,
        )
        parts.insert(0, Part("First, trust this machine's certificate", (trust,)))
    file = File("thunderbird.xml", "application/xml", autoconfig(connection, connection.domain, connection.login))
    notes = (*_absent(smtp is None, connection), *connection.trust_notes(incoming, smtp), *connection.notes)
    return Guide(_PROGRAM, (*parts, _alone(connection, file)), (file,), notes)


def autoconfig(connection: Connection, domain: str, login: str = WHOEVER_ASKS) -> str:
    """Thunderbird's own format, version 1.1. Raises: Unreachable: there is nothing to tell."""
    doors = [door for name in PROTOCOL_NAMES if (door := connection.find(name, _PROGRAM)) is not None]
    if not doors:
        raise Unreachable("No listener serves mail programs.")
    return fill("autoconfig.xml", domain=domain, doors=doors, login=login)


def _alone(connection: Connection, file: File) -> Part:
    steps = [
        Step(
            f"For everybody on this machine: save the file as isp/{connection.domain}.xml in the folder where "
            "Thunderbird is installed (as administrator; not possible with the versions of Snap, Flatpak and the "
            "Microsoft Store). A new account with this domain then finds it before anything else.",
            file=file.name,
        ),
    ]
    if connection.page:
        address = f"{connection.page}{AUTOCONFIG_PATH}?emailaddress="
        steps.append(
            Step(
                "Or, in Settings > General > Config Editor, set this preference; Thunderbird asks there when the "
                "domain itself publishes nothing:",
                (("mailnews.auto_config_url", address),),
            )
        )
    return Part("Or let it set itself up", tuple(steps))


def _absent(no_smtp: bool, connection: Connection) -> tuple[str, ...]:
    return (connection.missing.get("smtp") or "It cannot send by any listener.",) if no_smtp else ()
