"""Changes of an input line by line: what finds its way through a dialogue, where changes of octets get lost early.

Called by `by_atheris.py`, which changes octets half of the time, and by `by_hypothesis.py`.
"""

from __future__ import annotations

from random import Random

from tests.fuzz.targets import Target

MAX_CHANGES = 4  # of one input at once


class Mutator:
    """Changes inputs of one target by its own lines: those of its seeds, and its words."""

    def __init__(self, target: Target) -> None:
        self._header_octets = target.header_octets
        seeds = target.seeds()
        self._headers = sorted({each[: self._header_octets] for each in seeds})
        self._lines = sorted({line for each in seeds for line in self._split(each)} | set(target.words)) or [b""]

    def change(self, octets: bytes, random: Random) -> bytes:
        """Another input: lines put in, left out, said twice, exchanged or cut; now and then another header."""
        header, lines = octets[: self._header_octets], self._split(octets)
        for _ in range(random.randint(1, MAX_CHANGES)):
            at = random.randint(0, len(lines))
            match random.randrange(6):
                case 0 | 1:
                    lines[at:at] = [random.choice(self._lines)]
                case 2:
                    lines[at : at + 1] = [random.choice(self._lines)]
                case 3:
                    del lines[at : at + random.randint(1, 3)]
                case 4:
                    lines[at:at] = lines[at : at + random.randint(1, 3)]
                case 5:
                    lines[at : at + 1] = [self._within(line, random) for line in lines[at : at + 1]]
        if header and not random.randrange(4):
            place = random.randrange(len(header))
            changed = header[:place] + bytes([random.randrange(256)]) + header[place + 1 :]
            header = random.choice([changed, *self._headers])
        return header + b"".join(lines)

    def _within(self, line: bytes, random: Random) -> bytes:
        """One octet changed, a part left out, or a word put in."""
        at = random.randint(0, len(line))
        octet = bytes([random.randrange(256)])
        return line[:at] + random.choice([octet, b"", octet, random.choice(self._lines)]) + line[at + 1 :]

    def _split(self, octets: bytes) -> list[bytes]:
        return octets[self._header_octets :].splitlines(keepends=True)
