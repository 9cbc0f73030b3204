"""Ctrl-C, SIGTERM, a closed terminal: heard as one exception, only at moments when nothing can be lost by it.

What it is: signal handlers and when they may interrupt. What it is not: the cleaning up, which is `harbour.py`'s and is
never interrupted. `journey.py` makes the one `Departure` of a demo; `program.py` and `harbour.py` postpone it while
they make something that must be cleaned up later.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Leaving(BaseException):
    """Somebody asked us to end."""


class Departure:
    """A context manager: within it the signals are ours. The first one counts; further ones change nothing."""

    def __init__(self) -> None:
        self._asked = False
        self._heard = False
        self._before = {each: signal.getsignal(each) for each in SIGNALS}

    def __enter__(self) -> Self:
        for each, handler in self._before.items():
            if each is not signal.SIGHUP or handler is not signal.SIG_IGN:  # nohup means it
                signal.signal(each, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Here, and only here, a signal interrupts. Raises: Leaving."""
        self._heard = True
        try:
            self._leave_if_asked()
            yield
        finally:
            self._heard = False

    @contextlib.contextmanager
    def postponed(self) -> Iterator[None]:
        """A moment without interruption: something is made, and its removal is provided for. Raises: Leaving: then."""
        heard, self._heard = self._heard, False
        try:
            yield
        finally:
            self._heard = heard
        self._leave_if_asked()

    def _hear(self, _: int, __: FrameType | None) -> None:
        first, self._asked = not self._asked, True
        if first:
            self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self._asked and self._heard:
            raise Leaving
