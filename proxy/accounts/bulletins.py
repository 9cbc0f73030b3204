"""What a token's state is told as: to the table of states, and to a login that gets no token.

What it is: pure; the same explanation for both. What it is not: a decision; `tokens.py` has made it, and is the only
caller.
"""

from __future__ import annotations

from dataclasses import replace

from proxy.accounts.grants import Active, Broken, SignedOut, SigningIn, TokenState
from proxy.accounts.outcomes import NotGranted, SignInAgain, TryLater, explain
from proxy.accounts.permissions import consent_address
from proxy.accounts.states import State, TokenCondition, Trouble
from proxy.config.settings import Account, App, Flow
from proxy.explanations import Explanation
from proxy.login import Fault, LoginRefused, Refusal


def condition(app: App, state: TokenState, outage: TryLater | None, *, usable: bool) -> TokenCondition:
    """How the token is, for the table. `outage`: why it cannot be renewed just now; `usable` all the same."""
    told = _condition(app, state, outage, usable)
    settled = state.before if isinstance(state, SigningIn) else state
    return replace(told, refreshed_at_s=renewed_at_s(app, settled))


def awaits_sign_in(state: SignedOut | Active | Broken) -> bool:
    """Whether a person's sign-in is all that lacks."""
    return isinstance(state, SignedOut) or (isinstance(state, Broken) and isinstance(state.refused, SignInAgain))


def renewed_at_s(app: App, state: SignedOut | Active | Broken) -> float | None:
    """When Microsoft last renewed this grant; None for one that it takes no more, or that an app can always have."""
    if isinstance(state, SignedOut) or awaits_sign_in(state) or app.flow is Flow.APP_ONLY:
        return None
    return state.issued_at_s or None


def refusal(account: Account, refused: NotGranted, again_in_s: float | None = None) -> LoginRefused:
    """An outcome as a login's refusal; a mail program shows its first 160 characters (CLIENTS 3.1)."""
    row = _explain(refused, account.app, user=account.sign_in, login=account.name)
    detail = str(refused.error)
    match refused:
        case SignInAgain():
            text = f"Sign in to Microsoft again: run mailferry sign-in {account.name} ({row.cause})"
            told = row.refuse(account.name, refusal=Refusal.SIGN_IN_NEEDED, text=text, detail=detail)
        case TryLater():
            told = row.refuse(account.name, refusal=Refusal.TRY_LATER, detail=detail, again_in_s=again_in_s)
        case _:
            told = row.refuse(account.name, detail=detail)
    told.trace = refused.error.trace
    return told


def nobody_signed_in(account: Account) -> LoginRefused:
    """The refusal of a login for which there is no grant."""
    text = f"Nobody has signed in to Microsoft: run mailferry sign-in {account.name}"
    return LoginRefused(Refusal.SIGN_IN_NEEDED, text, fault=Fault.CLIENT, who="user")


def somebody_signs_in(hint: str) -> LoginRefused:
    """The refusal of a login while its person signs in; `hint` says how to go on."""
    text = f"A sign-in to Microsoft is under way: {hint}"
    return LoginRefused(Refusal.SIGN_IN_NEEDED, text, fault=Fault.CLIENT, who="user")


def _condition(app: App, state: TokenState, outage: TryLater | None, usable: bool) -> TokenCondition:
    match state:
        case SignedOut():
            return TokenCondition(State.SIGN_IN_NEEDED)
        case SigningIn(_, hint):
            return TokenCondition(State.SIGNING_IN, remedy=hint)
        case Broken(granted, refused):
            row = _explain(refused, app, user=granted.username)
            word = State.SIGN_IN_NEEDED if isinstance(refused, SignInAgain) else State.AUTHENTICATION_ERROR
            return TokenCondition(word, None, _trouble(row, refused), row.remedy)
        case Active(granted):
            expires_at_s = granted.expires_at_s or None
            if outage is None:
                return TokenCondition(None, expires_at_s)
            row = _explain(outage, app, user=granted.username)
            word_now = None if usable else State.CONNECT_ERROR
            return TokenCondition(word_now, expires_at_s, _trouble(row, outage), row.remedy)


def _explain(refused: NotGranted, app: App, *, user: str, login: str = "{login}") -> Explanation:
    """In a person's words. An identity may stand behind several logins: states.py names the one that is asked for."""
    return explain(refused).for_(user=user, consent=consent_address(app), app=app.name, login=login)


def _trouble(row: Explanation, refused: NotGranted) -> Trouble:
    return Trouble(row.cause, row.fault, row.remedy, row.who, refused.error.trace)
