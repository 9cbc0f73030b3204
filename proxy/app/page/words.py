"""Words for a person: account types by their human names, states in a sentence, how long until something ends."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from proxy.config import App
from proxy.config.settings import Flow

ACCOUNT_TYPES = {
    "organizations": "Work or school accounts of any organisation (Microsoft 365)",
    "consumers": "Personal Microsoft accounts (Outlook.com, Hotmail, Live, MSN)",
    "common": "Both: work, school and personal accounts",
}
"""The human names of what an authority takes (FACTS 1.2); everything else is one directory."""

STATES = {
    "sign_in_needed": "Somebody must sign in to Microsoft.",
    "signing_in": "A sign-in is under way.",
    "connecting": "Microsoft gives tokens; no mail program has logged in since.",
    "connected": "All is well: the last login reached the mailbox.",
    "authentication_error": "Microsoft or Exchange said no; somebody must act.",
    "connect_error": "Microsoft cannot be reached just now; it is tried again.",
    "disabled": "The app is switched off.",
}
UNDER_WAY = ("signing_in",)
"""States that change within seconds."""
_WHO = {
    "user": "the mailbox's owner",
    "administrator": "the organisation's administrator",
    "operator": "you, who run mailferry",
    "nobody": "nobody; it passes by itself",
}


def account_types(app: App) -> str:
    """Whose accounts this app is for."""
    if app.own_authority:
        return f"A sign-in service of your own: {app.authority}"
    return ACCOUNT_TYPES.get(app.account_types, f"Only the organisation {app.account_types}")


def credential(app: App) -> str:
    """How the app proves itself to Microsoft."""
    if app.certificate is not None:
        return "a certificate"
    if app.client_secret is not None:
        return "a client secret"
    return "nothing: a public client (mobile and desktop)"


def flow(app: App) -> str:
    if app.flow is Flow.APP_ONLY:
        return "The app signs in by itself (app-only)"
    return "People sign in (delegated)"


def must_act(who: str | None) -> str:
    """Empty where nobody knows."""
    return _WHO.get(who or "", "")


def countdown(moment: str, now: datetime.datetime) -> str:
    """`in 3 days`, `in 50 minutes`, `over since 2 hours`, of a time or a day as the states tell it (RFC 3339)."""
    end = datetime.datetime.fromisoformat(moment)
    if end.tzinfo is None:
        end = end.replace(tzinfo=datetime.UTC)
    left_s = (end - now).total_seconds()
    length = _length(abs(left_s))
    return f"in {length}" if left_s > 0 else f"over since {length}"


def expiries(row: Mapping[str, Any], now: datetime.datetime) -> list[tuple[str, str, str]]:
    """What of this account ends: its name, when, and the countdown."""
    names = (
        ("token_expires_at", "Access token, renewed by itself"),
        ("refresh_token_idle_expires_at", "Sign-in, if nobody uses it until then"),
        ("client_secret_expires", "The app's client secret"),
    )
    return [(name, row[key], countdown(row[key], now)) for key, name in names if row.get(key)]


def _length(seconds: float) -> str:
    for unit, unit_s in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // unit_s)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
