"""A message on its way when the fault strikes: half of it is through. Not a test.

Each function brings a message to its middle, calls `strike`, goes on as a program would, and enters into the ledger
what the server said at last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import cast

from tests.faults.programs import Mail, Trouble
from tests.faults.scene import Scene
from tests.servers.mailhost import Person

Strike = Callable[[], object]
PIECE_OCTETS = 65_536


def append(scene: Scene, person: Person, mail: Mail, strike: Strike, *, timeout_s: float) -> bool:
    """IMAP APPEND. Whether the server said OK."""
    client = scene.programs.imap(person)
    client.sock.settimeout(timeout_s)
    half = len(mail.octets) // 2
    acknowledged = False
    with suppress(*Trouble):
        client.send(b"m1 APPEND INBOX {%d}\r\n" % len(mail.octets))
        line = client.readline()
        assert line.startswith(b"+"), line
        client.send(mail.octets[:half])
        strike()
        client.send(mail.octets[half:] + b"\r\n")
        while (line := client.readline()) and not line.startswith(b"m1 "):
            pass
        acknowledged = line.startswith(b"m1 OK")
    scene.ledger.sent(person, mail, acknowledged=acknowledged)
    _drop(client.shutdown)
    return acknowledged


def fetch(scene: Scene, person: Person, mail: Mail, strike: Strike, *, timeout_s: float) -> bool:
    """IMAP FETCH of the newest message. Whether it came whole; what came must be right either way."""
    client = scene.programs.imap(person)
    client.sock.settimeout(timeout_s)
    count = client.select("INBOX")[1][0] or b"1"
    (lying,) = [each for each in scene.host.dovecot.messages(person.upn) if each.endswith(mail.octets)]
    came, wire = b"", cast("BufferedReader", client.file)
    with suppress(*Trouble):
        client.send(b"m1 FETCH %s (BODY.PEEK[])\r\n" % count)
        line = client.readline()
        size = re.search(rb"\{(\d+)\}\r\n$", line)
        assert size, line
        scene.expect(int(size[1]) == len(lying), "a literal has another size than the message")
        came = wire.read(len(lying) // 4)
        strike()
        while len(came) < len(lying):
            piece = wire.read1(min(PIECE_OCTETS, len(lying) - len(came)))
            if not piece:
                break
            came += piece
    scene.expect(lying.startswith(came), "octets came that do not lie there")
    _drop(client.shutdown)
    return came == lying


def data(scene: Scene, person: Person, mail: Mail, strike: Strike, *, timeout_s: float) -> bool:
    """SMTP DATA, to himself. Whether the server said 250."""
    client = scene.programs.smtp(person)
    assert client.sock is not None
    client.sock.settimeout(timeout_s)
    stuffed = re.sub(rb"(?m)^\.", b"..", mail.octets)
    acknowledged = False
    with suppress(*Trouble):
        client.mail(person.upn)
        client.rcpt(person.upn)
        assert client.docmd("DATA")[0] == 354
        client.send(stuffed[: len(stuffed) // 2])
        strike()
        client.send(stuffed[len(stuffed) // 2 :] + b".\r\n")
        acknowledged = client.getreply()[0] == 250
    scene.ledger.sent(person, mail, acknowledged=acknowledged)
    _drop(client.close)
    return acknowledged


def _drop(close: Callable[[], object]) -> None:
    with suppress(OSError):
        close()
