"""What stands behind an account's sign-in: whether Microsoft gives a token, and what is in it, without showing it.

The desk renews the token and reads its claims (`rehearsal.py`, `claims.py`); here they are judged. `examination.py` and
`probing.py` call it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxy.accounts.permissions import scopes
from proxy.app.answers import DeskError
from proxy.app.doctor.findings import Finding, Verdict, fail, ok, warn
from proxy.app.doctor.scene import Scene
from proxy.config import Account
from proxy.config.settings import Cloud, Flow
from proxy.login import Fault

CHECK = "token"
SIGN_IN = "sign_in"
UNDER_WAY = "Finish the sign-in that is under way."
LONG_TOKEN_CHARACTERS = 4_096  # longer ones end in a protocol error of Exchange's POP3 (FACTS 2.5)
_EXCHANGE_ID = "00000002-0000-0ff1-ce00-000000000000"  # Exchange Online, as newer tokens name their audience
_NEEDED = {"imap": "IMAP.AccessAsUser.All", "pop3": "POP.AccessAsUser.All", "smtp": "SMTP.Send"}
_ROLES = {"imap": "IMAP.AccessAsApp", "pop3": "POP.AccessAsApp", "smtp": "SMTP.SendAsApp"}
_USES = {"imap": "reading by IMAP", "pop3": "reading by POP3", "smtp": "sending"}


def check_grant(scene: Scene, account: Account) -> Iterator[Finding]:
    """Have the desk renew this account's token, and judge it."""
    title = f"Sign-in of {account.name}"
    try:
        answer = scene.ask("grant", login=account.name)
    except DeskError as error:
        yield warn(SIGN_IN, title, f"It cannot be looked at: {error.text}", Fault.MAILFERRY, _RELOAD)
        return
    if not answer["ok"]:
        yield refused(account, answer)
        return
    if answer.get("unasked"):
        yield warn(
            SIGN_IN,
            title,
            f"The token in hand is still good, but Microsoft does not renew it now: {answer['unasked']}",
            Fault(answer["fault"]),
            answer["remedy"] or "Nothing to do: mailferry tries again.",
            "nobody",
        )
    else:
        who = (
            f"the app {account.app.name}" if account.app.flow is Flow.APP_ONLY else answer["holder"] or account.sign_in
        )
        yield ok(SIGN_IN, title, f"Microsoft gave a fresh token for {who} just now.")
    yield from judge(account, answer["claims"])


_RELOAD = "If the account is new: mailferry reload; if mailferry was updated, restart it."


def refused(account: Account, answer: Mapping[str, Any]) -> Finding:
    """What it means that the desk got no token."""
    title = f"Sign-in of {account.name}"
    details = tuple(filter(None, [_said(answer), answer["trace"]]))
    fault, who = Fault(answer["fault"]), answer["who"]
    if answer["state"] == "signing_in":
        return warn(SIGN_IN, title, answer["cause"], fault, UNDER_WAY, "user", details)
    if answer["state"] == "disabled":
        remedy = f"Switch it on: mailferry app change {account.app.name} --enable"
        return fail(SIGN_IN, title, f"Its app {account.app.name} is switched off.", Fault.MAILFERRY, remedy)
    needs_person = answer["state"] == "sign_in_needed"
    return Finding(SIGN_IN, Verdict.FAIL, title, answer["cause"], fault, answer["remedy"], who, details, needs_person)


def judge(account: Account, claims: Mapping[str, Any], now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """What is wrong with a token that says this of itself."""
    title = f"Token of {account.name}"
    if claims["kind"] == "opaque":
        yield ok(CHECK, title, "It is not readable, as those of personal accounts are not; Exchange will say.")
        return
    troubles = [*_judge_audience(account, claims, title), *_judge_rights(account, claims, title)]
    troubles += [*_judge_person(account, claims, title), *_judge_life(claims, title, now)]
    if claims["characters"] > LONG_TOKEN_CHARACTERS and "pop3" in account.protocols:
        troubles.append(
            warn(
                CHECK,
                title,
                f"It has {claims['characters']} characters; Exchange's POP3 breaks off at more than 4096.",
                Fault.EXCHANGE,
                "Use IMAP for this mailbox, or have the person taken out of some groups.",
                "administrator",
            )
        )
    yield from troubles
    if not troubles:
        rights = ", ".join([*claims["scopes"], *claims["roles"]]) or "no rights that it names"
        whose = f" of {claims['user']}" if claims["user"] else ""
        yield ok(CHECK, title, f"It is for Exchange{whose}, with {rights}.", *_life(claims, now))


def _judge_audience(account: Account, claims: Mapping[str, Any], title: str) -> Iterator[Finding]:
    audience = claims["audience"].rstrip("/")
    expected = {scope.rpartition("/")[0] for scope in scopes(account.app)}
    if account.app.cloud is Cloud.GLOBAL:
        expected |= {"https://outlook.office.com", "https://outlook.office365.com"}
    if audience in expected or audience == _EXCHANGE_ID or not audience:
        return
    yield fail(
        CHECK,
        title,
        f"It is made for {audience}, and Exchange takes only tokens for {sorted(expected)[0]}.",
        Fault.MAILFERRY,
        f"Sign in again: mailferry sign-in {account.name}. If it stays, check the app's cloud in the configuration, "
        "and report this as a bug.",
    )


def _judge_rights(account: Account, claims: Mapping[str, Any], title: str) -> Iterator[Finding]:
    app_only = account.app.flow is Flow.APP_ONLY
    has, needed, kind = (
        (claims["roles"], _ROLES, "application") if app_only else (claims["scopes"], _NEEDED, "delegated")
    )
    if ".default" in claims["scopes"] or (app_only and not has and claims["scopes"]):
        return
    lacking = [protocol for protocol in account.protocols if needed[protocol] not in has]
    if not lacking:
        return
    names = " and ".join(needed[protocol] for protocol in lacking)
    uses = " and ".join(_USES[protocol] for protocol in lacking)
    again = "" if app_only else f"; then sign in again: mailferry sign-in {account.name}"
    yield fail(
        CHECK,
        title,
        f"It lacks {names}, so Exchange will refuse {uses}.",
        Fault.MAILFERRY,
        f"In the registration of {account.app.name} add {names} ({kind}) under API permissions, and consent{again}.",
        "administrator" if app_only else "operator",
        [f"It has: {', '.join(has) or 'nothing'}."],
    )


def _judge_person(account: Account, claims: Mapping[str, Any], title: str) -> Iterator[Finding]:
    user, made_for = claims["user"], claims["application_id"]
    if made_for and made_for.casefold() != account.app.application_id.casefold():
        yield fail(
            CHECK,
            title,
            f"It was made for another app ({made_for}) than the one that is configured.",
            Fault.MAILFERRY,
            f"Sign in again: mailferry sign-in {account.name}",
        )
    if account.app.flow is Flow.APP_ONLY or not user or user.casefold() == account.sign_in.casefold():
        return
    yield fail(
        CHECK,
        title,
        f"It belongs to {user}, and the account is for {account.sign_in}.",
        Fault.CLIENT,
        f"Sign in as {account.sign_in}, in a private window: mailferry sign-in {account.name}. Or, if {user} is meant, "
        f"write sign_in: {user} into the account's configuration.",
        "user",
    )


def _judge_life(claims: Mapping[str, Any], title: str, now: Callable[[], float]) -> Iterator[Finding]:
    expires_at_s = claims["expires_at_s"]
    if expires_at_s is not None and expires_at_s <= now():
        yield fail(
            CHECK,
            title,
            "Microsoft gave it just now, and by this machine's clock it is over already.",
            Fault.MAILFERRY,
            "Set this machine's clock: timedatectl set-ntp true",
        )


def _life(claims: Mapping[str, Any], now: Callable[[], float]) -> list[str]:
    expires_at_s = claims["expires_at_s"]
    if expires_at_s is None:
        return []
    when = datetime.datetime.fromtimestamp(expires_at_s, datetime.UTC)
    return [f"Good for {(expires_at_s - now()) / 60:.0f} minutes, until {when:%H:%M} UTC; renewed by itself."]


def _said(answer: Mapping[str, Any]) -> str:
    detail = answer.get("detail")
    return f"Microsoft's own words: {detail}" if detail else ""
