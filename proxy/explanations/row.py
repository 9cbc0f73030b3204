"""An explanation: a row of the table, said of a certain account, and cut to what a mail program shows.

What it is: the form of the rows, and the words for what no row knows. What it is not: the rows (`sign_in.py`,
`exchange.py`), which call it.

The remedies name keys of our configuration (PRODUCT 3) and our verbs (PRODUCT 2). `{mailbox}`, `{user}`, `{consent}`,
`{app}` and `{login}` in a text are filled by `Explanation.for_`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from proxy.login import Fault, LoginRefused, Refusal

Who = Literal["user", "administrator", "operator", "nobody"]
"""Who must act: the mailbox's user, the organisation's administrator, whoever runs mailferry, or nobody: it passes."""

MAX_RAW_CHARACTERS = 160  # CLIENTS 3.1: a foreign text in a reply stays on one line
MAX_TOLD_CHARACTERS = 160  # the same of our own: what a mail program shows
MAX_POINTER_CHARACTERS = 90  # of these, for saying where the rest stands

_LONG_WORD = re.compile(r"[\w~+=/-]{37,}")  # longer than a GUID: it might be a secret


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row of the table: how the error is known, and what is said of it."""

    cause: str
    remedy: str
    fault: Fault
    who: Who
    refusal: Refusal
    codes: tuple[int, ...] = ()
    """Sign-in: AADSTS numbers."""
    errors: tuple[str, ...] = ()
    """Sign-in: values of `error` or `suberror`, where no number says more."""
    pattern: str = ""
    """Exchange: a regular expression, found anywhere in the reply, in any case."""
    protocols: tuple[str, ...] = ("imap", "pop3", "smtp")
    """Exchange: where this reply is met."""
    known: bool = True
    """False: the table does not know this error; the cause shows it raw."""

    def for_(
        self, *, mailbox: str = "", user: str = "", consent: str = "", app: str = "", login: str = ""
    ) -> Explanation:
        """The same, said of this mailbox, this signed-in user, this admin consent address, this app and login."""
        names = {
            "{mailbox}": mailbox or "the mailbox",
            "{user}": user or "the signed-in user",
            "{consent}": consent or "the app's admin consent address",
            "{app}": app or "NAME",
            "{login}": login or "LOGIN",
        }

        def fill(text: str) -> str:
            return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)

        # An unknown error is shown as it came, braces and all.
        return replace(self, cause=fill(self.cause) if self.known else self.cause, remedy=fill(self.remedy))

    @property
    def text(self) -> str:
        """Cause and remedy, as one line."""
        return f"{self.cause} {self.remedy}"

    def told(self, login: str) -> str:
        """What a mail program is told: both, or what happened and where the rest stands. It shows so much, no more."""
        if len(self.text) <= MAX_TOLD_CHARACTERS:
            return self.text
        pointer = f" What to do: mailferry account show {login}"
        if len(pointer) > MAX_POINTER_CHARACTERS:
            pointer = " What to do: mailferry account list"
        room = MAX_TOLD_CHARACTERS - len(pointer)
        return (self.cause if len(self.cause) <= room else f"{self.cause[: room - 3]}...") + pointer

    def refuse(
        self,
        login: str,
        *,
        refusal: Refusal | None = None,
        text: str = "",
        detail: str = "",
        again_in_s: float | None = None,
    ) -> LoginRefused:
        """A login of this account, refused for this. `refusal` and `text` replace the row's own."""
        return LoginRefused(
            refusal or self.refusal,
            text or self.told(login),
            fault=self.fault,
            detail=detail,
            again_in_s=again_in_s,
            cause=self.cause,
            remedy=self.remedy,
            who=self.who,
        )


# Whose fault, who must act, and what the mail program is told
Verdict = tuple[Fault, Who, Refusal]
OUR_SETTINGS: Verdict = (Fault.MAILFERRY, "operator", Refusal.MISCONFIGURED)
SIGN_IN_AGAIN: Verdict = (Fault.MICROSOFT_SIGN_IN, "user", Refusal.SIGN_IN_NEEDED)
SIGN_IN_RIGHT: Verdict = (Fault.CLIENT, "user", Refusal.SIGN_IN_NEEDED)
DIRECTORY_RULE: Verdict = (Fault.MICROSOFT_SIGN_IN, "administrator", Refusal.SIGN_IN_NEEDED)
SIGN_IN_PASSES: Verdict = (Fault.MICROSOFT_SIGN_IN, "nobody", Refusal.TRY_LATER)
EXCHANGE_RULE: Verdict = (Fault.EXCHANGE, "administrator", Refusal.REFUSED_UPSTREAM)
EXCHANGE_PASSES: Verdict = (Fault.EXCHANGE, "nobody", Refusal.TRY_LATER)


def unknown(cause: str, fault: Fault, where_to_look: str = "") -> Explanation:
    """What is said of an error that no row knows. Nothing is thrown away for it: later may go well."""
    look = f"Look it up: {where_to_look} - " if where_to_look else ""
    remedy = f"{look}Nothing is lost; mailferry tries again. If it stays, run `mailferry doctor {{login}}`."
    return Explanation(cause, remedy, fault, "operator", Refusal.TRY_LATER, known=False)


def raw(text: str) -> str:
    """A foreign text in one bounded line of printable ASCII, without long words: one might be a secret."""
    line = " ".join("".join(c if " " < c <= "~" else " " if c.isspace() else "?" for c in text).split())
    return _LONG_WORD.sub("...", line)[:MAX_RAW_CHARACTERS] or "(nothing)"
