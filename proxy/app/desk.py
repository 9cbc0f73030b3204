"""The desk: what can be asked of a running office, one method a verb; requests and answers are plain JSON values.

The control socket asks it for a command beside a daemon; `cli.py` asks its own when no daemon runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from proxy.accounts.sign_in import DeviceSignIn, Refused, SignedIn
from proxy.app.office import Office
from proxy.config import Account
from proxy.config.settings import Flow

EXIT_FAILED, EXIT_USAGE, EXIT_HELD, EXIT_INTERRUPTED = 1, 2, 5, 130  # PRODUCT section 2; the last one as shells say it

Answer = dict[str, Any]


class DeskError(Exception):
    """The request cannot be met; the text says why and what to do. `exit_code` is the command's (PRODUCT section 2)."""

    def __init__(self, text: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.exit_code = exit_code


class Desk:
    """Answers for one office. `reload` reads the configuration again and returns its warnings."""

    def __init__(self, office: Office, reload: Callable[[], Awaitable[list[str]]]) -> None:
        self._office = office
        self._reload = reload
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
            "check_app_only": self.check_app_only,
            "sign_out": self.sign_out,
            "reload": self.reload,
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
        self._devices[begun.id] = begun
        return {"id": begun.id, "address": begun.address, "code": begun.code, "expires_at_s": begun.expires_at_s}

    async def await_device(self, id: str) -> Answer:
        """Wait until the person has entered the code, or it has expired."""
        device = self._devices.get(id)
        if device is None:
            raise DeskError("This sign-in is over. Start it again.")
        end = await device.result()
        self._devices.pop(id, None)  # not before: two commands may share one sign-in
        return self._signed_in(end)

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
            **self._office.states.report(account),
        }

    def _signed_in(self, result: SignedIn | Refused) -> Answer:
        if isinstance(result, Refused):
            raise _failed(result)
        return {"signed_in": result.username}


def no_account(login: str) -> str:
    """In a person's words."""
    return f"There is no account {login!r}. `mailferry account list` shows those there are."


def _failed(refused: Refused) -> DeskError:
    return DeskError(f"{refused.text} {refused.remedy}".strip())
