"""How an input of the fuzzer is read: a header that chooses what is around a dialogue, then what its peer says.

What it is: a small language in which short inputs reach long lines and name the secrets that a fuzzer could not guess.
What it is not: a judge; `conversation.py` plays a case and judges. Any octets are a case.

The header has 8 octets: settings, pacing, two of piece lengths, and four answers to logins. In what follows, three
octets stand for something else:

    FD          the secret as it is: the password (front) or the token (upstream)
    FC          its base64 as the protocol carries it
    FE 00 XX    the octet XX, whatever it is
    FE NN       the octet before, again, NN times 257; a line's end only NN times: lines take long
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from proxy.login import Bearer
from proxy.protocols import sasl

HEADER_OCTETS = 8
MAX_SPEECH_OCTETS = 80_000  # the longest bound of a dialogue is 65,536 octets
SHORT_SPEECH_OCTETS = 16_000  # where the longest is 12,288: short speeches are soon played
REPEATED_OCTETS = 257  # so that FF repeats reach that bound

PASSWORD = b"pw{%canary%}"  # no tag can hold these octets, so no honest answer can
BEARER = Bearer("u@example.com", "tok.Canary-" + "".join(f"{number:03}_" for number in range(45)))
"""Longer than any word that a server writes; its parts are all different."""
PLAIN_RESPONSE = base64.b64encode(b"\0u\0" + PASSWORD)
SECRET, ENCODED_SECRET, ESCAPE = 0xFD, 0xFC, 0xFE


@dataclass(frozen=True, slots=True)
class Case:
    """One input, read."""

    settings: int
    """What the dialogue is told of its connection: each bit is a choice."""
    expires: bool
    """The time for logging in runs out at the end."""
    counted: bool
    """The steps of one play are counted."""
    late: int
    """How many pieces arrive while a verdict is awaited."""
    lengths: tuple[int, int]
    """Of the pieces in which the speech arrives, in turn."""
    answers: bytes
    """How each login is answered, in turn, over and over."""
    speech: bytes = b""

    @classmethod
    def read(cls, octets: bytes, *, secret: bytes, encoded: bytes, speech_octets: int = SHORT_SPEECH_OCTETS) -> Case:
        header = octets[:HEADER_OCTETS].ljust(HEADER_OCTETS, b"\0")
        return cls(
            settings=header[0],
            expires=bool(header[1] & 0x80),
            counted=not header[1] & 0x40,
            late=header[1] & 0x03,
            lengths=(header[2] + 1, header[3] + 1),
            answers=header[4:],
            speech=expanded(octets[HEADER_OCTETS:], secret, encoded)[:speech_octets],
        )


def expanded(written: bytes, secret: bytes, encoded: bytes) -> bytes:
    """The octets that are meant, at most `MAX_SPEECH_OCTETS`."""
    speech = bytearray()
    position = 0
    while position < len(written) and len(speech) < MAX_SPEECH_OCTETS:
        octet = written[position]
        position += 1
        if octet == SECRET:
            speech += secret
        elif octet == ENCODED_SECRET:
            speech += encoded
        elif octet != ESCAPE:
            speech.append(octet)
        elif written[position : position + 1] == b"\0":
            speech += written[position + 1 : position + 2]
            position += 2
        else:
            times = written[position] if position < len(written) else 0
            speech += speech[-1:] * (times if speech[-1:] == b"\n" else times * REPEATED_OCTETS)
            position += 1
    return bytes(speech[:MAX_SPEECH_OCTETS])


def written(speech: bytes) -> bytes:
    """An input that means exactly this, with long runs of an octet written short."""
    escaped = re.sub(rb"[\xfc-\xfe]", lambda found: b"\xfe\x00" + found[0], speech)

    def shorten(run: re.Match[bytes]) -> bytes:
        times, rest = divmod(len(run[0]) - 1, REPEATED_OCTETS)
        return run[1] + bytes([ESCAPE, times]) + run[1] * rest

    return re.sub(rb"([^\n\xfc-\xfe])\1{257,65535}", shorten, escaped, flags=re.DOTALL)


def spoken_token() -> bytes:
    """How the token travels upstream."""
    return sasl.xoauth2(BEARER)
