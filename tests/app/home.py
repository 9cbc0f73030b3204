"""A configuration of a test's own, and mailferry's commands on it, run in the test's process. Not a test."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

import twisted.internet
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from proxy import config as configuration
from proxy.app.cli import run
from proxy.app.control import ControlSocket
from proxy.app.desk import Desk
from proxy.app.office import Office, OfficeReactor
from proxy.config import Config
from proxy.demo.identity import IdentityProvider

APPLICATION_ID = "11111111-1111-4111-8111-111111111111"
ROBOT_ID = "22222222-2222-4222-8222-222222222222"
SECRET = "the~Secret~Value~of~forty~characters~ok1"
ALICE = "alice@contoso.com"
DESK = "desk@contoso.com"
PATIENCE_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said."""

    exit_code: int
    output: str = field(repr=False)
    errors: str


class Typist(io.StringIO):
    """Standard input that is no terminal; what it gives may depend on what the command has said so far."""

    def __init__(self, types: Callable[[str], str], said: io.StringIO) -> None:
        super().__init__()
        self._types = types
        self._said = said

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]  # StringIO's own has this type
        return self._types(self._said.getvalue())


class Screen(io.StringIO):
    """Standard output; somebody reads it whenever it is flushed."""

    def __init__(self, reads: Callable[[str], None]) -> None:
        super().__init__()
        self._reads = reads

    def flush(self) -> None:
        if not self.closed:
            self._reads(self.getvalue())


class Home:
    """A main file without listeners that anybody binds, and an empty state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self.state_dir = folder / "state"
        self.write_main()

    def write_main(self, more: str = "", *, port: int = 1143, certificate: str = "", page: str = "off") -> None:
        listener = f"  - {{protocol: imap, address: localhost, port: {port}{certificate}}}\n"
        self.file.write_text(f"state_dir: {self.state_dir}\npage: {page}\nlisteners:\n{listener}{more}")
        self.file.chmod(0o600)

    def run(
        self,
        *arguments: str,
        types: Callable[[str], str] = lambda said: "",
        reads: Callable[[str], None] = lambda said: None,
        exit_code: int = 0,
    ) -> Told:
        """A command from start to end. It must end with this exit code, tell no traceback and leave no thread."""
        screen, errors = Screen(reads), io.StringIO()
        before = set(threading.enumerate())
        with (
            new_reactor() as reactor,
            mock.patch.object(twisted.internet, "reactor", reactor, create=True),
            mock.patch("sys.stdin", Typist(types, screen)),
            redirect_stdout(screen),
            redirect_stderr(errors),
        ):
            try:
                code = run(["--config", str(self.file), *arguments])
            except SystemExit as end:
                code = int(end.code or 0)
        told = Told(code, screen.getvalue(), errors.getvalue())
        assert told.exit_code == exit_code, told
        assert "Traceback" not in told.output + told.errors
        assert [thread for thread in threading.enumerate() if thread not in before and not thread.daemon] == []
        return told

    def config(self) -> Config:
        return configuration.read(self.file, {}).config

    def written(self, name: str) -> str:
        return (self.folder / "conf.d" / name).read_text()

    def add_app(self, *more: str) -> None:
        self.run("app", "add", "work", "--application-id", APPLICATION_ID, "--account-types", "organizations", *more)

    def add_account(self, login: str = ALICE, *more: str) -> str:
        """The password that was printed."""
        return printed_password(self.run("account", "add", login, *more))

    def add_signed_in(self, identity: IdentityProvider) -> None:
        """Alice's account at this sign-in service, and an app's own for another mailbox; nobody has signed in yet."""
        at = ("--authority", identity.authority, "--ca-file", str(identity.ca_file))
        self.run("app", "add", "work", "--application-id", APPLICATION_ID, *at)
        secret = self.folder / "secret"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        robot = ("--application-id", ROBOT_ID, "--flow", "app_only", "--client-secret-file", str(secret))
        self.run("app", "add", "robot", *robot, *at)
        self.add_account(ALICE, "--app", "work")
        self.add_account(DESK, "--app", "robot")


def printed_password(told: Told) -> str:
    (password,) = set(re.findall(r"^    (\S{24})$", told.output, re.MULTILINE))
    return str(password)


@contextmanager
def new_reactor() -> Iterator[AsyncioSelectorReactor]:
    loop = asyncio.new_event_loop()
    reactor = AsyncioSelectorReactor(loop)
    try:
        yield reactor
    finally:
        for waker in tuple(reactor._internalReaders):  # Twisted keeps a reactor for the process's life
            waker.connectionLost(None)
        loop.close()


class Turning:
    """A reactor that turns in a thread of its own."""

    def __init__(self, reactor: AsyncioSelectorReactor) -> None:
        self.reactor = reactor

    def call(self, work: Callable[[], T]) -> T:
        """Do it in the reactor's thread, and wait."""
        return cast("T", blockingCallFromThread(cast("Any", self.reactor), cast("Any", work)))

    def wait(self, work: Callable[[], Awaitable[T]]) -> T:
        return self.call(lambda: cast("T", Deferred.fromCoroutine(cast("Any", work()))))


@contextmanager
def turning() -> Iterator[Turning]:
    with new_reactor() as reactor:
        thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
        thread.start()
        yield Turning(reactor)
        reactor.callFromThread(reactor.stop)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Beside:
    """What a daemon has for commands: an office, its desk and the control socket. There are no listeners."""

    def __init__(self, home: Home, turning: Turning) -> None:
        self._home = home
        self.turning = turning
        self.reloads = 0
        self.office = turning.call(lambda: Office(home.config(), cast("OfficeReactor", turning.reactor)))
        self.desk = Desk(self.office, self._reload)
        self._control = ControlSocket(home.state_dir, self.desk.ask, cast("Any", turning.reactor))
        turning.wait(self.office.open)
        turning.call(self._control.start)

    async def _reload(self) -> list[str]:
        self.reloads += 1
        self.office.use(self._home.config())
        await self.office.look()
        return ["listeners changed"] if self.reloads == 1 else []

    def close(self) -> None:
        self.turning.wait(self._control.stop)
        self.turning.wait(self.office.close)
