"""The office: the accounts floor, built once from a configuration: store, tokens, sign-ins, states.

The daemon works in one; a command that runs while there is no daemon opens one for itself. Whoever holds the office
holds the state folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from proxy.accounts.invitations import Invitations
from proxy.accounts.keys import KeyUnusable, key_place
from proxy.accounts.microsoft import POOL_THREADS, Microsoft
from proxy.accounts.passdb import MAX_HASHES_AT_ONCE, PassDb
from proxy.accounts.sign_in import SignIns
from proxy.accounts.states import AccountStates
from proxy.accounts.store import SqliteStore, StoreError, lock_state_folder
from proxy.accounts.tokens import Tokens
from proxy.accounts.upkeep import Upkeep
from proxy.config import Config
from proxy.metrics import Metrics
from proxy.network.reactor import Reactor


class OfficeReactor(Reactor, IReactorFromThreads):
    """A reactor that threads can call back."""


class Office:
    """Holds the state folder from its making to `close`."""

    def __init__(self, config: Config, reactor: OfficeReactor) -> None:
        """Hold the state folder.

        Raises:
            StateFolderHeld: a daemon, or another command, works in it.
            StoreError: the text says what is wrong and what to do.
        """
        self.config = config
        self.reactor = reactor
        self._folder = lock_state_folder(config.state_dir)
        self.states = AccountStates()
        self.metrics = Metrics()
        self._store = SqliteStore(self._folder, key_place(config.key), reactor, metrics=self.metrics)
        self._microsoft_pool = _pool(POOL_THREADS, "microsoft")
        self._hash_pool = _pool(MAX_HASHES_AT_ONCE, "scrypt")
        microsoft = Microsoft(self._microsoft_pool, reactor)
        self.tokens = Tokens(self._store, microsoft, reactor, self.states, metrics=self.metrics)
        self.sign_ins = SignIns(microsoft, self.tokens, reactor)
        self.invitations = Invitations(self.sign_ins, self.tokens, reactor)
        self.upkeep = Upkeep(self.tokens, self.states, reactor)
        """Started by the daemon alone."""
        self.upkeep.use(config.accounts, config.apps)
        self.passdb = self._passdb(config)

    async def open(self) -> None:
        """Open the store and look what each account has.

        Raises:
            StoreError, KeyUnusable: no record was changed, and the state folder is given back.
        """
        try:
            await self._store.open()
        except (StoreError, KeyUnusable):
            self._folder.release()
            raise
        self._microsoft_pool.start()
        self._hash_pool.start()
        await self.look()

    def use(self, config: Config) -> None:
        """Work with a new configuration from now on; grants, tokens and states stay."""
        self.passdb = self._passdb(config)
        self.upkeep.use(config.accounts, config.apps)
        self.config = config

    async def look(self) -> None:
        """Look what each account has, so that their states are right; logins need not wait for it."""
        await self.tokens.start(self.config.accounts)

    @property
    def store(self) -> SqliteStore:
        """For what concerns it as a whole (`custody.py`); grants are the tokens' business."""
        return self._store

    @property
    def state_dir(self) -> Path:
        """The folder that is held."""
        return self._folder.path

    async def reread(self) -> None:
        """Take what the store holds now: a backup was restored into it. A refresh under way is dropped."""
        self.tokens.reread()
        await self.look()

    async def look_at_store(self) -> None:
        """Read from it. Raises: StoreError: it cannot be read."""
        await self._store.load("")  # which nothing is called

    async def close(self) -> None:
        """Save what is to be saved, end the threads, release the folder."""
        self.upkeep.stop()
        self.sign_ins.close()
        await self.tokens.close()
        await self._store.close()
        for pool in (self._microsoft_pool, self._hash_pool):
            # `stop` waits for its threads. What still hangs at Microsoft has been waited for: `tokens.close`.
            threading.Thread(target=pool.stop, daemon=True).start()
        self._folder.release()

    def _passdb(self, config: Config) -> PassDb:
        def run(job: Callable[[], bool]) -> Deferred[bool]:
            return deferToThreadPool(self.reactor, self._hash_pool, job)

        return PassDb(config.accounts, run=run, now=self.reactor.seconds)


def _pool(threads: int, name: str) -> ThreadPool:
    """Threads that do not keep the process alive."""
    pool = ThreadPool(0, threads, name)
    pool.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
    return pool
