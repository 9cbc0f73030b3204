"""The corpus: inputs that reach what the seeds do not reach, few and small; and findings, made small.

What it is: reading, choosing and shrinking inputs. What it is not: a fuzzer; `engine.py` runs those. An input is worth
keeping when it takes a step between two lines of `proxy/` that no other takes, or takes one far more often.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from tests.fuzz.targets import ROOT, Target

if TYPE_CHECKING:
    from _typeshed import TraceFunction


FOLDER = Path(__file__).parent / "corpus"
MAX_KEPT = 60  # inputs of one target
MAX_KEPT_OCTETS = 2_048  # of one input
MAX_CANDIDATES = 500  # traced after a run, the smallest first
MAX_SHRINKING_STEPS = 3_000

Failure = tuple[type[BaseException], str, int]
"""What went wrong, and at which line."""
Feature = tuple[str, int, int, int]
"""File, two lines taken one after the other, and how often, in powers of two."""

_SOURCE = str(ROOT / "proxy")


def kept(target: Target) -> list[bytes]:
    """What stands in the corpus, beside the target's seeds."""
    return [file.read_bytes() for file in sorted((FOLDER / target.name).glob("*"))]


def keep(target: Target, inputs: Iterable[bytes]) -> int:
    """Add to the corpus those of these inputs that add to it, up to `MAX_KEPT`, and drop what adds nothing any more.

    Returns how many inputs it then has.
    """
    before = kept(target)
    known: set[Feature] = set()
    for octets in target.seeds():
        known |= features(target.harness, octets)
    chosen = _choose(target, known, before)
    chosen += _choose(target, known, set(inputs) - set(before))
    folder = FOLDER / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for octets in set(before) - set(chosen[:MAX_KEPT]):
        _file(target, octets).unlink()
    for octets in chosen[:MAX_KEPT]:
        _file(target, octets).write_bytes(octets)
    return len(chosen[:MAX_KEPT])


def _choose(target: Target, known: set[Feature], inputs: Iterable[bytes]) -> list[bytes]:
    """Those that add to what is known, most first; what they reach is known then."""
    small = sorted((each for each in inputs if len(each) <= MAX_KEPT_OCTETS), key=lambda each: (len(each), each))
    adds = {octets: features(target.harness, octets) - known for octets in small[:MAX_CANDIDATES]}
    chosen: list[bytes] = []
    while adds and len(chosen) < MAX_KEPT:
        best = max(adds, key=lambda octets: (len(adds[octets]), -len(octets), octets))
        gained = adds.pop(best)
        if not gained:
            break
        chosen.append(best)
        known |= gained
        adds = {octets: rest for octets, each in adds.items() if (rest := each - gained)}
    return chosen


def _file(target: Target, octets: bytes) -> Path:
    return FOLDER / target.name / sha256(octets).hexdigest()[:16]


def features(harness: Callable[[bytes], None], octets: bytes) -> set[Feature]:
    """What an input reaches in `proxy/`; nothing where it is a finding."""
    steps: Counter[tuple[str, int, int]] = Counter()

    def enter(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        file = frame.f_code.co_filename
        if not file.startswith(_SOURCE):
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: object) -> TraceFunction:
            nonlocal before
            if event == "line":
                steps[file, before, frame.f_lineno] += 1
                before = frame.f_lineno
            return step

        return step

    tracing = sys.gettrace()
    sys.settrace(enter)
    try:
        harness(octets)
    except Exception:
        return set()
    finally:
        sys.settrace(tracing)
    return {(*arc, times.bit_length()) for arc, times in steps.items()}


def failure_of(harness: Callable[[bytes], None], octets: bytes) -> Failure | None:
    """What this input makes go wrong; None when all holds."""
    try:
        harness(octets)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error), last.filename, last.lineno or 0
    return None


def shrink(harness: Callable[[bytes], None], octets: bytes) -> bytes:
    """The smallest input found that fails in the same way: pieces are left out, then octets made zero."""
    failure = failure_of(harness, octets)
    steps = 0
    length = max(1, len(octets) // 2)
    while failure is not None and length and steps < MAX_SHRINKING_STEPS:
        start, before = 0, len(octets)
        while start < len(octets) and steps < MAX_SHRINKING_STEPS:
            steps += 1
            shorter = octets[:start] + octets[start + length :]
            if failure_of(harness, shorter) == failure:
                octets = shorter
            else:
                start += length
        if length > 1 or len(octets) == before:
            length //= 2
    for position in range(len(octets)):
        simpler = octets[:position] + b"\0" + octets[position + 1 :]
        if failure is not None and failure_of(harness, simpler) == failure:
            octets = simpler
    return octets
