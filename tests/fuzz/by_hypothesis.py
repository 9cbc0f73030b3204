"""Inputs by Hypothesis: the short run under pytest, and the long one where there is no atheris.

It is not led by coverage; it leans on the corpus, to which coverage has led before.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import kept
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import Target

ROUND_EXAMPLES = 500  # between two looks at the clock


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """The seeds and the corpus, changed line by line; and noise behind their headers."""
    known = [*target.seeds(), *kept(target)]
    changed = st.builds(Mutator(target).change, st.sampled_from(known), st.randoms(use_true_random=False))
    headers = st.sampled_from(sorted({each[: target.header_octets] for each in known}))
    return changed | st.builds(bytes.__add__, headers, st.binary())


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
