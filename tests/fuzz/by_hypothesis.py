"""Inputs by Hypothesis: the short run under pytest, and the long one where there is no atheris.

It is not led by coverage, so its inputs are made of what the seeds and the target's words give.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import Target

MAX_PIECES = 12
MAX_NOISE_OCTETS = 20
ROUND_EXAMPLES = 500  # between two looks at the clock


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs near the seeds: their lines, the target's words and noise, in any order behind any header."""
    seeds, header_octets = target.seeds(), target.header_octets
    lines = {line for each in seeds for line in each[header_octets:].splitlines(keepends=True)}
    piece = st.sampled_from(sorted({b"\n", *lines, *target.words})) | st.binary(max_size=MAX_NOISE_OCTETS)
    header = st.sampled_from(sorted({each[:header_octets] for each in seeds}))
    if header_octets:
        header |= st.binary(min_size=header_octets, max_size=header_octets)
    return st.builds(bytes.__add__, header, st.lists(piece, max_size=MAX_PIECES).map(b"".join))


def explore(target: Target, examples: int, *, repeatable: bool = True) -> None:
    """Run this many inputs, the same ones each time if repeatable. Raises: what the harness raises."""
    run = given(inputs(target))(lambda octets: target.harness(octets))
    settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=repeatable,
        phases=(Phase.generate,),  # the caller shrinks
        suppress_health_check=list(HealthCheck),
    )(run)()


def explore_for(target: Target, seconds: float) -> tuple[int, bytes | None]:
    """Run inputs for so long, or until one fails: how many were run, and the one that fails."""
    executed, last = 0, b""

    def watched(octets: bytes) -> None:
        nonlocal executed, last
        executed, last = executed + 1, octets
        target.harness(octets)

    ends = monotonic() + seconds
    while monotonic() < ends:
        try:
            explore(replace(target, harness=watched), ROUND_EXAMPLES, repeatable=False)
        except Exception:
            return executed, last
    return executed, None
