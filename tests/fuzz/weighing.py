"""What a dialogue holds and how much it works, in numbers that are the same each time: no clock.

Called by `conversation.py` and `dialogues.py`, which know the bounds.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from proxy.protocols.dialogue import Front, InputBuffer, Upstream


class CountedOctets(bytearray):
    """A bytearray that counts the octets in which something was searched."""

    scanned = 0

    def find(self, *where: Any) -> int:
        """As `InputBuffer` calls it: what is looked for, and from where on."""
        sought, start = where
        found = super().find(sought, start)
        self.scanned += (len(self) if found < 0 else found) - start
        return found


def buffer_of(dialogue: Front | Upstream) -> InputBuffer:
    found = vars(dialogue)["_input"]
    assert isinstance(found, InputBuffer)
    return found


def held_octets(thing: object, seen: set[int] | None = None) -> int:
    """How much a dialogue holds: its octets and texts, and one for each item of a collection."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, str | bytes | bytearray):
        return len(thing)
    if isinstance(thing, dict):
        return len(thing) + sum(held_octets(each, seen) for each in (*thing.keys(), *thing.values()))
    if isinstance(thing, list | tuple | set | frozenset):
        return len(thing) + sum(held_octets(each, seen) for each in thing)
    if not type(thing).__module__.startswith("proxy.") or isinstance(thing, type | enum.Enum):
        return 0
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    values = [getattr(thing, name) for name in slots if hasattr(thing, name)]
    return sum(held_octets(each, seen) for each in (*values, *getattr(thing, "__dict__", {}).values()))


def count_searches(dialogue: Front | Upstream, buffers: list[CountedOctets]) -> None:
    """Let the dialogue's buffer count; after STARTTLS it has another."""
    buffer = buffer_of(dialogue)
    if not isinstance(buffer._data, CountedOctets):
        buffer._data = CountedOctets(buffer._data)
        buffers.append(buffer._data)


def steps_of(work: Callable[[], None]) -> int:
    """How many calls a piece of work makes, in Python and in C: the same number each time."""
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        if event == "call" or (event == "c_call" and not _is_instrument(argument)):
            steps += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return steps


def _is_instrument(function: object) -> bool:
    """Whether this is atheris, whose calls are between ours when it watches."""
    return str(getattr(function, "__module__", None)).startswith("atheris.")
