"""How a sign-in ends, as data and in words for a person: who is signed in, or what happened and what to do next.

What it is: pure; each no as one `Refused`, for page, command line and mail program alike. What it is not: the sign-in
itself (`sign_in.py`, which calls it), or the meaning of Microsoft's errors (`explanations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from proxy.accounts.outcomes import NotGranted, TryLater, explain
from proxy.accounts.permissions import consent_address
from proxy.config.settings import Account, Flow
from proxy.explanations import aadsts_codes, meaning_address
from proxy.login import Fault, Trace

_CODE_EXPIRED = 70019  # FACTS 5 row 20; RFC 8628 §3.5: expired_token
_AGAIN = "Start the sign-in again."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """It is done: this person's grant stands behind the account from now on."""

    account: str
    username: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It did not work, in words for a person; nothing was changed."""

    text: str
    remedy: str
    fault: Fault
    who: str = "user"
    """Who must act: `explanations.Who`."""
    trace: Trace = Trace()  # noqa: RUF009 - frozen
    """By which an administrator finds it in Microsoft's log."""
    unfinished: bool = False
    """Nobody said yes or no: it was given up, or took too long."""

    @property
    def told(self) -> str:
        """All of it, in one line."""
        return " ".join(part for part in (self.text, self.remedy, self.trace.sentence) if part)


@dataclass(frozen=True, slots=True)
class AnotherPerson:
    """A token is somebody else's than the account says; nothing was changed."""

    username: str


GIVEN_UP = Refused("The sign-in was given up.", "Start it again when you are ready.", Fault.CLIENT, unfinished=True)
DEVICE_EXPIRED = Refused("The device code has expired.", _AGAIN, Fault.CLIENT, unfinished=True)
TOOK_TOO_LONG = Refused("This sign-in took longer than ten minutes.", _AGAIN, Fault.CLIENT, unfinished=True)
NOT_OPEN = Refused("This sign-in is not open: it was finished already, or began elsewhere.", _AGAIN, Fault.CLIENT)
OUR_MISTAKE = Refused("mailferry made a mistake; it stands in the log.", _AGAIN, Fault.MAILFERRY, "operator")


def unfit(account: Account) -> Refused | None:
    """Why nobody can sign in for this account, whatever Microsoft says; None if somebody can."""
    app = account.app
    if not app.enabled:
        text, remedy = f"The app {app.name} is switched off.", f"Switch it on: mailferry app change {app.name} --enable"
        return Refused(text, remedy, Fault.MAILFERRY, "operator")
    if app.flow is Flow.APP_ONLY:
        return Refused(f"The app {app.name} signs in by itself.", "Nobody needs to sign in.", Fault.CLIENT, "nobody")
    return None


def refused_by_microsoft(account: Account, refused: NotGranted) -> Refused:
    """Microsoft's no, explained for this account."""
    app, error = account.app, refused.error
    row = explain(refused).for_(
        mailbox=account.mailbox, user=account.sign_in, consent=consent_address(app), app=app.name, login=account.name
    )
    remedy = row.remedy
    if isinstance(refused, TryLater):  # no login that is tried again by itself: a person waits
        look = f"Look it up: {meaning_address(error.codes[0])} - " if error.codes and not row.known else ""
        remedy = f"{look}Start the sign-in again in a few minutes."
    expired = error.code == "expired_token" or _CODE_EXPIRED in error.codes
    return Refused(row.cause, remedy, row.fault, row.who, error.trace, unfinished=expired)


def no_answer(account: Account) -> Refused:
    """What was handed over is nothing that Microsoft said."""
    return Refused(
        "That is not where Microsoft's sign-in ends: it holds no answer.",
        f"Start the sign-in again, go on until the browser is sent to {account.app.redirect_uri}, and copy that "
        "address whole. If Microsoft's page shows an error, paste its text with the AADSTS number.",
        Fault.CLIENT,
        unfinished=True,
    )


def another_person(account: Account, username: str) -> Refused:
    """Somebody signed in, and not whom the account is for."""
    return Refused(
        f"You signed in to Microsoft as {username}, but the account is for {account.sign_in}. Nothing was changed.",
        f"Sign in as {account.sign_in}, in a private window if need be; or, if {username} is meant, "
        f"write sign_in: {username} into the account's configuration.",
        Fault.CLIENT,
    )


def pasted(text: str) -> Mapping[str, str]:
    """The query in a pasted address, or in a part of one; empty if there is none. Its `state` is the sign-in's id.

    Microsoft's error page has no such address: its text (`AADSTS50011: ...`) is taken for what it says.
    """
    line = text.strip().strip("<>\"'")
    query = line.partition("?")[2] or line
    fields = dict(parse_qsl(query.partition("#")[0]))
    if not {"code", "error"} & fields.keys() and aadsts_codes(text):
        return {"error": "", "error_description": text}  # the page does not show OAuth's word
    return fields
