"""The counter: where a command asks, whether or not a daemon runs.

Beside a daemon it asks through the control socket. Without one it opens an office of its own for the time of the
command (`own_office.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from proxy.app.answers import Answer
from proxy.app.asking import NoDaemon, ask_daemon
from proxy.config import Config

if TYPE_CHECKING:
    from proxy.app.own_office import OwnOffice


class Counter:
    """Use as a context manager; `ask` may be called any number of times."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        """`read` gives the configuration as it is by then, for a command that changes it meanwhile."""
        self._config = config
        self._read = read or (lambda: config)
        self._own: OwnOffice | None = None

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()

    def ask(self, verb: str, **arguments: Any) -> Answer:
        """The desk's answer (`desk.py`).

        Raises:
            DeskError: it cannot be done; or there is no daemon, and no office can be opened.
        """
        if self._own is None:
            try:
                return ask_daemon(self._config.state_dir, verb, arguments)
            except NoDaemon:
                from proxy.app.own_office import OwnOffice  # as much to load as a daemon; most commands need it not

                self._own = OwnOffice(self._read)
        return self._own.ask(verb, arguments)

    def reload(self) -> list[str]:
        """Have the daemon, or our own office if it is open, work with the configuration as it is now; its warnings."""
        if self._own is None:
            return reload_daemon(self._config)
        return cast("list[str]", self._own.ask("reload", {})["warnings"])


def reload_daemon(config: Config) -> list[str]:
    """Have a running daemon read the configuration again; its warnings. Without one there is nothing to do."""
    try:
        return cast("list[str]", ask_daemon(config.state_dir, "reload", {})["warnings"])
    except NoDaemon:
        return []
