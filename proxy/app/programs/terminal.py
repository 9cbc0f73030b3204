"""Programs of a terminal: mutt and neomutt, msmtp, mbsync, fetchmail. Their files say how to give the password."""

from __future__ import annotations

from typing import Any

from proxy.app.programs.connection import Connection, Door
from proxy.app.programs.fill import fill
from proxy.app.programs.guide import File, Guide


def mutt(connection: Connection) -> Guide:
    """Reads, and sends where the account may. Raises: Unreachable: it can do neither."""
    incoming = connection.find("imap", "mutt") or connection.find("pop3", "mutt")
    smtp = connection.find("smtp", "mutt")
    if incoming is None and smtp is None:
        incoming = connection.incoming("mutt")
    doors = [door for door in (incoming, smtp) if door is not None]
    return _guide(
        connection,
        "mutt and neomutt",
        "muttrc",
        *doors,
        incoming=incoming,
        incoming_prefix="pop" if incoming and incoming.protocol == "pop3" else "imap",
        smtp=smtp,
        securities={door.security.value for door in doors},
    )


def msmtp(connection: Connection) -> Guide:
    """Sends. Raises: Unreachable."""
    smtp = connection.door("smtp", "msmtp")
    return _guide(connection, "msmtp", "msmtprc", smtp, smtp=smtp)


def mbsync(connection: Connection) -> Guide:
    """Copies the mailbox. Raises: Unreachable: it speaks IMAP alone."""
    incoming = connection.door("imap", "mbsync")
    return _guide(connection, "mbsync (isync)", "mbsyncrc", incoming, incoming=incoming)


def fetchmail(connection: Connection) -> Guide:
    """Fetches mail. Raises: Unreachable."""
    incoming = connection.incoming("fetchmail")
    return _guide(connection, "fetchmail", "fetchmailrc", incoming, incoming=incoming)


def _guide(connection: Connection, title: str, template: str, *doors: Door, **values: Any) -> Guide:
    text = fill(
        template,
        login=connection.login,
        mailbox=connection.mailbox,
        stem=connection.file_stem,
        password_file=connection.password_file,
        authority=connection.trusts(*doors),
        **values,
    )
    notes = (*connection.trust_notes(*doors), *connection.notes)
    return Guide(title, files=(File(template, "text/plain", text),), notes=notes, plain=True)
