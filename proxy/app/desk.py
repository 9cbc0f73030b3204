"""The desk: what can be asked of a running office, one method a verb; requests and answers are plain JSON values.

The control socket asks it for a command beside a daemon; `cli.py` asks its own when no daemon runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from proxy.accounts.backup import BackupUnusable
from proxy.accounts.endings import AnotherPerson, Refused, SignedIn
from proxy.accounts.keys import KeyUnusable
from proxy.accounts.sign_in import DeviceSignIn
from proxy.accounts.store import StoreError
from proxy.app import custody, rehearsal
from proxy.app.answers import (
    EXIT_FAILED,
    EXIT_NO_DAEMON,
    EXIT_SIGN_IN_NEEDED,
    EXIT_USAGE,
    Answer,
    DeskError,
    no_account,
)
from proxy.app.office import Office
from proxy.app.recollection import Recollection
from proxy.config import Account
from proxy.config.settings import PROTOCOL_NAMES, Flow
from proxy.log import Log
from proxy.network.watches import MAX_WATCH_S, Watches

log = Log("desk")

STORE_LIMIT_S = 5.0  # for the store to answer whoever asks for our health; it takes a millisecond
MAX_DEVICES = 64  # device sign-ins whose end nobody fetches: a page that was closed


class Desk:
    """Answers for one office. `reload` reads the configuration again and returns its warnings; `sessions` counts an
    account's. `page_link` is the page's, once the daemon has one."""

    page_link: Callable[[], str] | None = None
    recollection: Recollection | None = None
    """The daemon's last warnings."""
    watches: Watches | None = None
    """Whom the daemon's sessions log in full."""
    shut: Callable[[], list[str]] = list
    """The daemon's ports through which nobody comes in, as address and number."""

    def __init__(
        self,
        office: Office,
        reload: Callable[[], Awaitable[list[str]]],
        sessions: Callable[[Account], int] = lambda _account: 0,
    ) -> None:
        self._office = office
        self._reload = reload
        self._sessions = sessions
        self._devices: dict[str, DeviceSignIn] = {}
        """Device sign-ins whose end nobody has fetched yet, by id."""

    async def ask(self, verb: str, arguments: dict[str, Any]) -> Answer:
        """Answer one request.

        Raises:
            DeskError: see there.
            LoginRefused, StoreError: it cannot be done now.
        """
        verbs: dict[str, Callable[..., Awaitable[Answer]]] = {
            "accounts": self.accounts,
            "begin_code": self.begin_code,
            "finish_code": self.finish_code,
            "begin_device": self.begin_device,
            "await_device": self.await_device,
            "look_at_device": self.look_at_device,
            "adopt_refresh_token": self.adopt_refresh_token,
            "check_app_only": self.check_app_only,
            "sign_out": self.sign_out,
            "about": self.about,
            "grant": self.grant,
            "probe": self.probe,
            "warnings": self.warnings,
            "watch": self.watch,
            "unwatch": self.unwatch,
            "watches": self.watched,
            "reload": self.reload,
            "invite": self.invite,
            "look_at_store": self.look_at_store,
            "health": self.health,
            "store": self.store,
            "rotate_key": self.rotate_key,
            "back_up": self.back_up,
            "restore": self.restore,
        }
        method = verbs.get(verb)
        if method is None:
            raise DeskError(f"The daemon does not know the request {verb!r}; is it an older mailferry?", EXIT_USAGE)
        try:
            answer = method(**arguments)
        except TypeError as error:
            raise DeskError(f"The request {verb!r} is malformed: {error}", EXIT_USAGE) from None
        return await answer

    async def accounts(self) -> Answer:
        """Every account with its state."""
        return {"accounts": [self._row(account) for account in self._office.config.accounts]}

    async def begin_code(self, login: str, redirect_uri: str) -> Answer:
        """Start a sign-in by browser: the address to open, and the id to finish it with."""
        begun = await self._office.sign_ins.begin_code(self._account(login), redirect_uri)
        if isinstance(begun, Refused):
            raise _failed(begun)
        return {"id": begun.id, "address": begun.address}

    async def finish_code(self, id: str, query: dict[str, str]) -> Answer:
        """Finish it with the query of the address that the browser was sent back to."""
        return self._signed_in(await self._office.sign_ins.finish_code(id, query))

    async def begin_device(self, login: str) -> Answer:
        """Start a sign-in by device code: what to enter, and where."""
        begun = await self._office.sign_ins.begin_device(self._account(login))
        if isinstance(begun, Refused):
            raise _failed(begun)
        while len(self._devices) >= MAX_DEVICES and begun.id not in self._devices:
            del self._devices[next(iter(self._devices))]
        self._devices[begun.id] = begun
        return {"id": begun.id, "address": begun.address, "code": begun.code, "expires_at_s": begun.expires_at_s}

    async def await_device(self, id: str) -> Answer:
        """Wait until the person has entered the code, or it has expired."""
        device = self._devices.get(id)
        if device is None:
            raise DeskError("This sign-in is over. Start it again.", EXIT_SIGN_IN_NEEDED)
        end = await device.result()
        self._devices.pop(id, None)  # not before: two commands may share one sign-in
        return self._signed_in(end)

    async def look_at_device(self, id: str) -> Answer:
        """How it stands, without waiting: `signed_in` is None as long as Microsoft waits for the person."""
        device = self._devices.get(id)
        if device is None:
            raise DeskError("This sign-in is over. Start it again.", EXIT_SIGN_IN_NEEDED)
        if device.end is None:
            return {
                "signed_in": None,
                "code": device.code,
                "address": device.address,
                "expires_at_s": device.expires_at_s,
            }
        return await self.await_device(id)

    async def adopt_refresh_token(self, login: str, refresh_token: str) -> Answer:
        """Take over another program's grant; or say whose it is, if it is not the account's."""
        end = await self._office.sign_ins.redeem(self._account(login), refresh_token)
        return {"belongs_to": end.username} if isinstance(end, AnotherPerson) else self._signed_in(end)

    async def check_app_only(self, login: str) -> Answer:
        """Have the app itself ask for a token: there is nobody to sign in."""
        account = self._account(login)
        self._office.tokens.try_again(account)  # a person asks: what was refused a while ago may be mended
        await self._office.tokens.access(account, user=account.mailbox, fresh=True)
        return {"signed_in": account.app.name}

    async def sign_out(self, login: str) -> Answer:
        """Forget the tokens of this account's sign-in."""
        account = self._account(login)
        await self._office.tokens.sign_out(account)
        return {"signed_out": account.name}

    async def reload(self) -> Answer:
        return {"warnings": await self._reload()}

    async def invite(self) -> Answer:
        """A link that opens the page once. It is for the terminal, never for the log."""
        if self.page_link is None:
            raise DeskError(
                "The page is off. Write `page: 127.0.0.1:8143` into the configuration, then: mailferry reload"
            )
        return {"address": self.page_link()}

    async def look_at_store(self) -> Answer:
        """Whether the token store answers. Raises: StoreError: it does not."""
        await self._office.look_at_store()
        return {}

    async def health(self) -> Answer:
        """Why nobody could be served now; `reasons` is empty where all is well. No names of people.

        That it answers shows that the reactor turns. That the store takes no write is no reason: logins go on.
        """
        reasons = [f"no connection is accepted at {port}" for port in self.shut()]
        try:
            await Deferred.fromCoroutine(self._office.look_at_store()).addTimeout(STORE_LIMIT_S, self._office.reactor)
        except (StoreError, TimeoutError):  # the text may name a record; the log has it
            reasons.append("the store does not answer")
        return {"reasons": reasons}

    async def store(self) -> Answer:
        """How many records it has, and whether the disk takes a write now: `trouble`, and `trouble_since`."""
        return await custody.look(self._office)

    async def rotate_key(self) -> Answer:
        """Seal every record with a new key."""
        with _told():
            return await custody.rotate(self._office)

    async def back_up(self, key: str, head: str) -> Answer:
        """All records, sealed with this key of a backup's (base64), under its head."""
        with _told():
            return await custody.back_up(self._office, key, head)

    async def restore(self, key: str, head: str, replace: bool = False, rehearse: bool = False) -> Answer:
        """Take the sealed records that lie in the state folder."""
        with _told():
            return await custody.restore(self._office, key, head, replace=replace, rehearse=rehearse)

    async def about(self) -> Answer:
        """The process that answers: its id, version and descriptors."""
        return rehearsal.about()

    async def grant(self, login: str) -> Answer:
        """Renew the account's token, and tell what it says of itself, but never the token (`rehearsal.py`)."""
        return await rehearsal.show_grant(self._office, self._account(login))

    async def probe(self, login: str, protocol: str) -> Answer:
        """Log in at Exchange by this protocol, and out again (`rehearsal.py`)."""
        if protocol not in PROTOCOL_NAMES:
            raise DeskError(f"There is no protocol {protocol!r}.", EXIT_USAGE)
        return await rehearsal.probe(self._office, self._account(login), protocol)

    async def warnings(self) -> Answer:
        """The last warnings of the log; none without a daemon."""
        return {"lines": self.recollection.lines if self.recollection else []}

    async def watch(self, whom: str, for_s: float) -> Answer:
        """Have everything logged about this account, or about who connects from this address, for a while."""
        name = self._watchable(whom)
        self._watches().begin([name], for_s)
        log.warning("watch begun", whom=name, for_s=min(for_s, MAX_WATCH_S))
        return await self.watched()

    async def unwatch(self, whom: str) -> Answer:
        """Have no more logged than of others."""
        self._watches().end([self._watchable(whom)])
        return await self.watched()

    async def watched(self) -> Answer:
        """Who is watched, and for how long yet."""
        left_s = self._watches().left_s()
        return {"watched": [{"whom": name, "left_s": round(left, 1)} for name, left in left_s.items()]}

    def _watchable(self, whom: str) -> str:
        try:
            return str(ip_address(whom))
        except ValueError:
            return self._account(whom).name

    def _watches(self) -> Watches:
        if self.watches is None:
            raise DeskError("No sessions are served here: it is the daemon that logs them.", EXIT_NO_DAEMON)
        return self.watches

    def _account(self, login: str) -> Account:
        account = self._office.config.account(login)
        if account is None:
            raise DeskError(no_account(login), EXIT_USAGE)
        return account

    def _row(self, account: Account) -> Answer:
        return {
            "login": account.name,
            "logins": list(account.logins),
            "mailbox": account.mailbox,
            "sign_in": account.sign_in,
            "app": account.app.name,
            "app_only": account.app.flow is Flow.APP_ONLY,
            "protocols": list(account.protocols),
            "passwords": [local.name for local in account.passwords],
            "sessions": self._sessions(account),
            **custody.report(self._office, account),
        }

    def _signed_in(self, result: SignedIn | Refused) -> Answer:
        if isinstance(result, Refused):
            raise _failed(result)
        return {"signed_in": result.username}


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a key or a backup, told to the command."""
    try:
        yield
    except (BackupUnusable, KeyUnusable) as error:
        raise DeskError(error.text) from None


def _failed(refused: Refused) -> DeskError:
    return DeskError(refused.told, EXIT_SIGN_IN_NEEDED if refused.unfinished else EXIT_FAILED)
