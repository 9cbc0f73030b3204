"""`mailferry demo` as a child process, in a temporary folder of its own. Not a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
DEMO = (sys.executable, "-m", "proxy", "demo")


class Demo:
    """Started at once; `folder` becomes its $TMPDIR, and its home, so that what it leaves anywhere is seen."""

    def __init__(self, folder: Path, *words: str, command: tuple[str, ...] = DEMO) -> None:
        self._home, self._temporary = folder / "home", folder / "t"
        for each in (self._home, self._temporary):
            each.mkdir()
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, *words],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self._temporary), "HOME": str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.output = ""

    def read(self, until: str) -> str:
        """What it prints, up to the line that holds this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if until in line:
                return self.output
        raise AssertionError(f"the demo ended without saying {until!r}:\n{self.output}\n{self.errors}")

    def end(self, by: signal.Signals | None = None) -> int:
        """The exit code; after this signal, or by itself."""
        if by is not None:
            self.process.send_signal(by)
        try:
            rest, _ = self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.output += rest
        return self.process.returncode

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def children(self) -> list[int]:
        """Processes that run with a file of its temporary folder on their command line."""
        return processes(lambda words: str(self._temporary) in words)

    @property
    def left(self) -> list[str]:
        """What it left behind: files anywhere, and processes."""
        files = [str(file) for folder in (self._home, self._temporary) for file in folder.rglob("*")]
        return files + [f"process {pid}" for pid in self.children]


def processes(chosen: Callable[[str], bool]) -> list[int]:
    """Those whose command line is chosen; a process that has ended has none."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if chosen(words):
            found.append(int(file.parent.name))
    return found
