"""One atheris process: `python -m tests.fuzz.by_atheris TARGET ...`, with libFuzzer's own arguments behind.

Atheris must see the modules before they are loaded, so the targets are imported late. `__main__.py` starts it.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["proxy"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup(sys.argv, TARGETS[name].harness)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
