"""A command's own office, for its time alone: the reactor in a thread, the state folder held as by a daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from proxy.accounts.keys import KeyUnusable
from proxy.accounts.store import StateFolderHeld, StoreError
from proxy.app.answers import EXIT_HELD, Answer, DeskError, refused_login
from proxy.app.desk import Desk
from proxy.app.office import Office
from proxy.app.reactor import the_reactor
from proxy.config import Config
from proxy.login import LoginRefused

T = TypeVar("T")


class OwnOffice:
    """Open from its making to `close`. What goes wrong is told as `DeskError`."""

    def __init__(self, read: Callable[[], Config]) -> None:
        self._reactor = the_reactor()
        self._read = read
        with _told():
            self._office = Office(read(), self._reactor)
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

        with _told():
            return cast("T", blockingCallFromThread(self._reactor, cast("Any", begin)))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LoginRefused as refused:
        raise refused_login(refused) from None
    except StateFolderHeld as held:
        who = f"Another mailferry (process {held.pid})" if held.pid else "Another mailferry"
        raise DeskError(f"{who} works in the state folder; wait or stop it.", EXIT_HELD) from None
    except (StoreError, KeyUnusable) as error:
        raise DeskError(error.text) from None
