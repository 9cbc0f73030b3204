"""One atheris process: `python -m tests.fuzz.by_atheris TARGET ...`, with libFuzzer's own arguments behind.

Atheris must see the modules before they are loaded, so the targets are imported late. `__main__.py` starts it.
"""

from __future__ import annotations

import sys
from random import Random

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["proxy"]):
        from tests.fuzz.mutation import Mutator
        from tests.fuzz.targets import TARGETS

    lines = Mutator(TARGETS[name])

    def mutate(octets: bytes, max_octets: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(2):
            return bytes(atheris.Mutate(octets, max_octets))
        return lines.change(octets, random)[:max_octets]

    atheris.Setup(sys.argv, TARGETS[name].harness, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
