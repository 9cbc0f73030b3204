"""The counter: where a command asks, whether or not a daemon runs.

Beside a daemon it asks through the control socket. Without one it opens an office of its own for the time of the
command, in a thread with the reactor, and holds the state folder as a daemon would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from proxy.app.control import NoDaemon, ask_daemon
from proxy.app.desk import Answer, Desk
from proxy.app.office import Office, OfficeReactor
from proxy.config import Config

T = TypeVar("T")


class Counter:
    """Use as a context manager; `ask` may be called any number of times."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        """`read` gives the configuration as it is by then, for a command that changes it meanwhile."""
        self._config = config
        self._read = read or (lambda: config)
        self._own: _OwnOffice | None = None

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()

    def ask(self, verb: str, **arguments: Any) -> Answer:
        """The desk's answer (`desk.py`).

        Raises:
            DeskError, LoginRefused: it cannot be done.
            StateFolderHeld, StoreError, KeyUnusable: there is no daemon, and no office can be opened.
        """
        if self._own is None:
            try:
                return ask_daemon(self._config.state_dir, verb, arguments)
            except NoDaemon:
                self._own = _OwnOffice(self._read)
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


class _OwnOffice:
    def __init__(self, read: Callable[[], Config]) -> None:
        from twisted.internet import reactor  # installed by now, see __main__

        self._reactor: Any = reactor
        self._read = read
        self._office = Office(read(), cast("OfficeReactor", reactor))
        self._desk = Desk(self._office, self._reload)
        self._thread = threading.Thread(target=self._reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
        self._thread.start()
        try:
            self._wait(self._office.open())
        except BaseException:
            self._leave()
            raise

    def ask(self, verb: str, arguments: dict[str, Any]) -> Answer:
        return self._wait(self._desk.ask(verb, arguments))

    def close(self) -> None:
        try:
            self._wait(self._office.close())
        finally:
            self._leave()

    async def _reload(self) -> list[str]:
        self._office.use(self._read())
        await self._office.look()
        return []

    def _leave(self) -> None:
        self._reactor.callFromThread(self._reactor.stop)
        self._thread.join()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        def begin() -> Deferred[T]:
            return Deferred.fromCoroutine(work)

        return cast("T", blockingCallFromThread(self._reactor, cast("Any", begin)))
