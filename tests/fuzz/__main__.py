"""The long run: `tests/fuzz/run [--seconds N] [TARGET...]`.

Each target is fuzzed in a process of its own, as many at once as there are cores, so that all end after N seconds of
wall time. It prints how many inputs were run and what they found, keeps in `corpus/` what adds to the seeds, writes
the smallest case of each finding to `findings/`, and then exits with 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.fuzz.by_hypothesis import explore_for
from tests.fuzz.corpus import failure_of, keep, kept, shrink
from tests.fuzz.targets import ROOT, TARGETS, Target

FINDINGS = Path(__file__).parent / "findings"
DEFAULT_SECONDS = 600
MAX_INPUT_OCTETS = 2_048
MAX_INPUT_S = 25  # one input; the slowest that is honest takes a tenth of it
MAX_MEMORY_MIB = 2_048
STOP_S = 60  # libFuzzer ends after the input that it is at


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one target's run came to."""

    executed: int
    found: tuple[bytes, ...]
    """Inputs that fail."""
    inputs: tuple[bytes, ...]
    """Candidates for the corpus."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and say what came of it; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/run", description="Fuzz mailferry's pure parts.")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="wall time in all (%(default)s)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)}; default: all")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = [TARGETS[name] for name in asked.targets or TARGETS]
    cores = min(len(os.sched_getaffinity(0)), len(targets))
    seconds_each = max(1.0, asked.seconds * cores / len(targets))
    fuzz = _by_atheris if importlib.util.find_spec("atheris") else _by_hypothesis
    print(f"{len(targets)} targets {fuzz.__name__[1:].replace('_', ' ')}, {seconds_each:.0f} s each, {cores} at once")
    with ThreadPoolExecutor(cores) as pool:
        outcomes = pool.map(lambda target: fuzz(target, seconds_each), targets)
        found = [_tell(target, outcome) for target, outcome in zip(targets, outcomes, strict=True)]
    return 1 if any(found) else 0


def _by_hypothesis(target: Target, seconds: float) -> Outcome:
    executed, found = explore_for(target, seconds)
    return Outcome(executed, () if found is None else (found,), ())


def _by_atheris(target: Target, seconds: float) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="mailferry-fuzz-") as name:
        work, inputs = Path(name), Path(name, "inputs")
        inputs.mkdir()
        for octets in [*target.seeds(), *kept(target)]:
            (inputs / sha256(octets).hexdigest()[:16]).write_bytes(octets)
        (work / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        command = [sys.executable, "-m", "tests.fuzz.by_atheris", target.name, str(inputs)]
        command += [f"-max_total_time={max(1, round(seconds))}", f"-max_len={MAX_INPUT_OCTETS}", "-print_final_stats=1"]
        command += [f"-timeout={MAX_INPUT_S}", f"-rss_limit_mb={MAX_MEMORY_MIB}", f"-artifact_prefix={work}/found-"]
        command += [f"-dict={work}/words"] if target.words else []
        ran = subprocess.run(
            command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, timeout=seconds + STOP_S
        )
        told = ran.stderr.decode("utf-8", "replace")
        counts = re.findall(r"^(?:#|stat::number_of_executed_units: *)(\d+)\b", told, re.MULTILINE)
        found = tuple(file.read_bytes() for file in sorted(work.glob("found-*")))
        if not counts or (ran.returncode and not found):
            raise RuntimeError(f"atheris failed on {target.name}:\n{told[-2_000:]}")
        return Outcome(int(counts[-1]), found, tuple(file.read_bytes() for file in inputs.iterdir()))


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def _tell(target: Target, outcome: Outcome) -> bool:
    """Print what a target's run came to, and keep what it brought; whether it found anything."""
    size = keep(target, outcome.inputs)
    print(f"{target.name:16} {outcome.executed:>10,} inputs, {size:>2} kept, {len(outcome.found)} findings", flush=True)
    for octets in outcome.found:
        failure = failure_of(target.harness, octets)
        smallest = shrink(target.harness, octets)
        FINDINGS.mkdir(exist_ok=True)
        file = FINDINGS / f"{target.name}-{sha256(smallest).hexdigest()[:8]}"
        file.write_bytes(smallest)
        kind, where, line = failure or (TimeoutError, "too slow, or too much memory", 0)
        print(f"  {kind.__name__} at {where}:{line}\n  {smallest!r}\n  written to {file.relative_to(ROOT)}", flush=True)
    return bool(outcome.found)


if __name__ == "__main__":
    sys.exit(main())
