"""The daemon: builds everything from the configuration once, and ends it in order.

SIGTERM and SIGINT drain and stop; SIGHUP reads the configuration again. systemd is told READY, RELOADING and STOPPING.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import STDLibLogObserver, globalLogBeginner

from proxy import __version__
from proxy import log as logging
from proxy.accounts.keys import KeyUnusable
from proxy.accounts.store import StateFolderHeld, StoreError
from proxy.app.answers import EXIT_FAILED, EXIT_HELD, EXIT_USAGE, DeskError
from proxy.app.certificates import note_shown
from proxy.app.control import ControlSocket
from proxy.app.desk import Desk
from proxy.app.hooks import Hooks
from proxy.app.notify import Pulse, notify
from proxy.app.office import Office
from proxy.app.page.service import PageService, make_page
from proxy.app.reactor import the_reactor
from proxy.app.recollection import Recollection
from proxy.app.registry import Registry
from proxy.config import Account, Config, ConfigurationError, Listener, read
from proxy.config.settings import Certificate, ListenerTls
from proxy.log import Log
from proxy.network.doors import CannotListen
from proxy.network.handed import Handed, take
from proxy.network.limits import Gate
from proxy.network.listener import Ferry, Listeners
from proxy.network.mailboxes import Mailboxes
from proxy.network.session import Services, kind_of
from proxy.network.throttle import Throttle
from proxy.network.tls import local_certificate, server_context
from proxy.network.watches import Watches
from proxy.protocols import PROTOCOLS

_FOR_A_RESTART = ("state_dir", "key")
"""What a reload leaves as it was, and says so: the state folder is held, and the store is open with this key."""

log = Log("daemon")


def serve(config: Config, environ: Mapping[str, str], *, greet: Callable[[str], None] | None = None) -> int:
    """Run until told to stop. Returns the exit code. `greet` is given a link to the page once all is ready."""
    logging.start(config.log.level, config.log.format)
    globalLogBeginner.beginLoggingTo([STDLibLogObserver("twisted")], redirectStandardIO=False)
    raise_descriptor_limit()
    handed = take(os.environ)
    reactor = the_reactor()
    daemon = Daemon(config, environ, reactor, greet=greet, handed=handed)
    reactor.callWhenRunning(daemon.begin)
    reactor.run()
    return daemon.exit_code


class Daemon:
    """Start and stop of the whole house, in the order that each floor needs."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        reactor: Any,
        *,
        greet: Callable[[str], None] | None = None,
        handed: Handed = (),
    ) -> None:
        """`greet` is given a link to the page once the daemon is ready; `handed` is what systemd listens on for us."""
        self.exit_code = 0
        self._config = config
        self._environ = environ
        self._reactor = reactor
        self._greet = greet
        self._handed = handed
        self._page: PageService | None = None
        self._reloading = DeferredLock()
        self._recollection = Recollection()

    def begin(self) -> None:
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    async def _start(self) -> None:
        config = self._config
        log.info("starting", version=__version__, configuration=str(config.file), state_dir=str(config.state_dir))
        self._office = Office(config, self._reactor)
        await self._office.open()
        try:
            self._open_doors(config)
        except BaseException:
            await self._office.close()
            raise
        self._reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(self._stop()))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._hang_up))
        self._office.upkeep.start()
        log.info("ready", accounts=len(config.accounts))
        if not config.accounts:
            log.info("no account yet", next="mailferry app add NAME, then mailferry account add LOGIN")
        notify("READY=1")
        self._pulse.start()
        self._hooks.start()
        if self._page is not None and self._greet is not None:
            with contextlib.suppress(DeskError):  # it does not listen, which is in the log
                self._greet(self._page.link())

    def _open_doors(self, config: Config) -> None:
        gate = Gate(self._reactor)
        services = Services(
            config=config,
            passdb=self._office.passdb,
            throttle=Throttle(self._reactor.seconds),
            mailboxes=Mailboxes(config, self._office.tokens, self._reactor, self._office.metrics),
            invitations=self._office.invitations,
            states=self._office.states,
            gate=gate,
            reactor=self._reactor,
            metrics=self._office.metrics,
            watches=Watches(self._reactor.seconds),
        )
        listeners = listener_contexts(config)
        note_shown(config, time.time())
        self._ferry = Ferry(services, self._handed)
        self._pulse = Pulse(self._ferry, self._status, self._reactor)
        self._hooks = Hooks(config, self._office.states, self._reactor, metrics=self._office.metrics)
        self._desk = Desk(self._office, self._reload, partial(count_sessions, gate))
        self._desk.recollection = self._recollection
        self._desk.shut = self._ferry.shut
        self._desk.watches = services.watches
        self._office.metrics.connections = lambda: self._ferry.connections
        self._control = ControlSocket(config.state_dir, self._desk.ask, self._reactor)
        self._control.start()
        self._ferry.listen(listeners)
        self._open_page(config)

    def _open_page(self, config: Config) -> None:
        self._page, self._desk.page_link = None, None
        if config.page is not None and config.file is not None:
            registry = Registry(config.file, self._environ)
            self._page = make_page(config.page, self._desk, registry, self._office, self._reactor)
            self._page.start()
            self._desk.page_link = self._page.link

    def _failed(self, failure: Any) -> None:
        """The start failed: say why in a line, and end."""
        match failure.value:
            case StateFolderHeld(pid=pid):
                self.exit_code = EXIT_HELD
                log.error("another mailferry holds the state folder", state_dir=str(self._config.state_dir), pid=pid)
            case CannotListen() | StoreError() | KeyUnusable() | UnusableCertificate():
                self.exit_code = EXIT_FAILED
                log.error("cannot start", reason=str(failure.value))
            case error:
                self.exit_code = EXIT_FAILED
                log.failure("cannot start", error)
        self._reactor.stop()

    async def _stop(self) -> None:
        notify("STOPPING=1")
        log.info("stopping", sessions=self._ferry.sessions)
        self._pulse.stop()
        self._hooks.stop()
        if self._page is not None:
            await self._page.stop()
        await self._control.stop()
        await self._ferry.stop()
        await self._office.close()
        log.info("stopped")
        self._recollection.close()

    def _status(self) -> str:
        """A line for `systemctl status`, without anybody's name."""
        states = self._office.states
        words = Counter(states.state(account).value for account in self._office.config.accounts)
        told = ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "none"
        return f"{self._ferry.sessions} sessions; accounts: {told}"

    # --- reload

    def _hang_up(self) -> None:
        Deferred.fromCoroutine(self._reload()).addErrback(lambda failure: failure.trap(DeskError) and None)

    async def _reload(self) -> list[str]:
        """One after the other: systemd takes READY for the end of the only one.

        Raises:
            DeskError: as `_reload_now`; the log has it too.
        """
        await self._reloading.acquire()
        try:
            return await self._reload_now()
        except DeskError as error:
            log.error("configuration not reloaded; the old one stays", reason=error.text)
            raise
        finally:
            self._reloading.release()

    async def _reload_now(self) -> list[str]:
        """Apply what the files say now, certificates too, to all that comes from now on; sessions that run go on.

        Raises:
            DeskError: the files do not hold, a certificate is not good, or a port cannot be had; nothing is changed.
        """
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            loaded = read(self._config.file, self._environ)
            new, warnings = self._as_far_as_it_goes(loaded.config)
            self._ferry.listen(listener_contexts(new))
        except ConfigurationError as error:
            raise DeskError("\n".join(str(finding) for finding in error.findings), EXIT_USAGE) from None
        except (UnusableCertificate, CannotListen) as error:
            raise DeskError(str(error)) from None
        else:
            await self._use(new)
        finally:
            notify("READY=1")
        log.info("configuration reloaded", accounts=len(new.accounts))
        warnings = [str(finding) for finding in loaded.findings] + warnings
        for warning in warnings:
            log.warning("configuration", finding=warning)
        return warnings

    def _as_far_as_it_goes(self, new: Config) -> tuple[Config, list[str]]:
        """What of a new configuration works without a restart, and a sentence for each thing that does not."""
        olds = {name: getattr(self._config, name) for name in _FOR_A_RESTART}
        waiting = [name for name, old in olds.items() if getattr(new, name) != old]
        return replace(new, **olds), [f"{name} changed: restart mailferry to use it" for name in waiting]

    async def _use(self, new: Config) -> None:
        """None of this fails."""
        moved, self._config = new.page != self._config.page, new
        logging.start(new.log.level, new.log.format)
        note_shown(new, time.time())
        self._office.use(new)
        self._ferry.use(new, self._office.passdb)
        self._hooks.use(new)
        if moved:
            if self._page is not None:
                await self._page.stop()
            self._open_page(new)
        await self._office.look()


class UnusableCertificate(Exception):
    """A listener's certificate or key cannot be used; the text says which and why."""


def count_sessions(gate: Gate, account: Account) -> int:
    """The sessions of the account's mailbox there are now."""
    return sum(gate.taken(kind_of(protocol, account)) for protocol in PROTOCOLS.values())


def listener_contexts(config: Config) -> Listeners:
    """Each listener with what it shows for TLS; one context for all that show the same.

    Raises:
        UnusableCertificate: see there.
    """
    made: dict[tuple[Certificate | None, bool], ssl.SSLContext] = {}

    def context(listener: Listener) -> ssl.SSLContext | None:
        if listener.tls is ListenerTls.OFF:
            return None
        kind = (listener.certificate, listener.legacy_tls)
        if kind not in made:
            with _told(config, listener):
                made[kind] = server_context(_certificate(config, listener), legacy=listener.legacy_tls)
        return made[kind]

    return [(listener, context(listener)) for listener in config.listeners]


def _certificate(config: Config, listener: Listener) -> Certificate:
    return listener.certificate or local_certificate(config.state_dir / "tls", config.hostname)


@contextlib.contextmanager
def _told(config: Config, listener: Listener) -> Iterator[None]:
    """Whatever is wrong with a listener's certificate is told as `UnusableCertificate`."""
    own = listener.certificate
    where = f"{own.file}, {own.key}" if own else config.state_dir / "tls"
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError):
            why = "they are no PEM certificate and its unencrypted key, or do not belong together"
        else:
            why = getattr(error, "strerror", None) or str(error)
        raise UnusableCertificate(
            f"The certificate of the {listener.protocol} listener cannot be used ({where}): {why}"
        ) from None


def raise_descriptor_limit() -> None:
    """Two descriptors a session: take all that we are allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
