"""Whom the operator watches: logins and addresses whose sessions say all they do, for a time with a bound.

What it is: names with their ends, and the transcript of a connection's dialogue before its login. What it is not: a log
of mail; nothing of what is relayed comes here. A command switches a watch on through the desk; sessions ask whether
they are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.log import Log

MAX_WATCH_S = 3600.0  # a watch that nobody ends is over after an hour: its lines name people, and are many
MAX_WATCHES = 32
MAX_KEPT_LINES = 64  # until a login says whose connection it is; a dialogue that ends well has some ten
MAX_LINE_CHARACTERS = 500


class Watches:
    """All of them, by name in lower case. `seconds` is a clock that only goes forward."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._ends_s: dict[str, float] = {}

    def begin(self, names: Iterable[str], for_s: float) -> None:
        """Watch these until then; the oldest are forgotten for them."""
        for name in names:
            self._ends_s.pop(name.casefold(), None)
            self._ends_s[name.casefold()] = self._seconds() + min(for_s, MAX_WATCH_S)
        while len(self._ends_s) > MAX_WATCHES:
            del self._ends_s[next(iter(self._ends_s))]

    def end(self, names: Iterable[str]) -> None:
        for name in names:
            self._ends_s.pop(name.casefold(), None)

    def left_s(self) -> dict[str, float]:
        """Who is watched, and for how long yet."""
        now_s = self._seconds()
        self._ends_s = {name: end_s for name, end_s in self._ends_s.items() if end_s > now_s}
        return {name: end_s - now_s for name, end_s in self._ends_s.items()}

    @property
    def any(self) -> bool:
        return bool(self._ends_s) and bool(self.left_s())

    def on(self, name: str) -> bool:
        """Whether this one is watched now."""
        return self._ends_s.get(name.casefold(), 0.0) > self._seconds() if self._ends_s else False


class Transcript:
    """What is said on one connection, as its dialogue shows it: to the log, or kept until it is known whose it is."""

    def __init__(self, leg: str, log: Log, seconds: Callable[[], float]) -> None:
        """`leg` is who is spoken with: `mail program`, or `upstream`."""
        self._leg = leg
        self._log = log
        self._seconds = seconds
        self._kept: list[tuple[float, str, str]] = []

    def use(self, log: Log) -> None:
        """From now on this log; what was kept is told, if it takes it."""
        self._log = log
        if log.debugs:
            kept, self._kept = self._kept, []
            for at_s, how, text in kept:
                self._tell(how, text, ago_s=self._seconds() - at_s)

    def heard(self, text: str) -> None:
        self._note("heard", text)

    def told(self, octets: bytes) -> None:
        for line in octets.decode("ascii", "backslashreplace").splitlines():
            self._note("told", line)

    def _note(self, how: str, text: str) -> None:
        if self._log.debugs:
            self._tell(how, text)
        elif len(self._kept) < MAX_KEPT_LINES:
            self._kept.append((self._seconds(), how, text[:MAX_LINE_CHARACTERS]))

    def _tell(self, how: str, text: str, ago_s: float | None = None) -> None:
        self._log.debug("dialogue", leg=self._leg, ago_s=ago_s, **{how: text})
