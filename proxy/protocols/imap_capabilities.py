"""PURE: the capabilities that IMAP's front names, before a login and after it (CLIENTS 2.2).

What they are: two lists of atoms. What they are not: the ways to log in themselves, which the front settles. Called by
`imap_front.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.protocols import sasl

EXCHANGE = (
    *("IMAP4", "IMAP4rev1", "LITERAL+", "SASL-IR", "ID", "IDLE"),
    *("NAMESPACE", "CHILDREN", "UIDPLUS", "UNSELECT", "MOVE"),
)
"""What Exchange offers after login, less what old programs must not see."""
_NAMED_ALWAYS = frozenset({"IMAP4", "IMAP4REV1", "SASL-IR"})
"""These speak of the login itself, or are what programs insist on; whether upstream names them does not matter."""
_WITHHELD = frozenset({"STARTTLS", "LOGINDISABLED", "IMAP4REV2", "ENABLE"})
"""And `AUTH=...`: what is left out of a list after login."""


def before_login(learnt: Iterable[str], *, offers_tls: bool, needs_tls: bool) -> list[str]:
    """What we take ourselves, and of the rest no more than upstream had at its last login; of Exchange it is known."""
    known = {c.upper() for c in learnt} or {c.upper() for c in EXCHANGE}
    named = [c for c in EXCHANGE if c.upper() in known | _NAMED_ALWAYS]
    if offers_tls:
        named.append("STARTTLS")
    return [*named, "LOGINDISABLED"] if needs_tls else [*named, *(f"AUTH={name.decode()}" for name in sasl.MECHANISMS)]


def after_login(capabilities: Iterable[str]) -> list[str]:
    """Of these the ones that a program may see once it is logged in."""
    return [c for c in capabilities if not _withheld(c.upper())]


def _withheld(capability: str) -> bool:
    return capability in _WITHHELD or capability.startswith("AUTH=")
