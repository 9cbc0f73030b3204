"""GROUND: what an error of Microsoft's sign-in service or of Exchange means, whose fault it is, and what to do next.

One table, for every place that tells a person why it does not work: log, replies, command line, page. What it is not:
control flow. FACTS 4.5: react to the OAuth `error`; the AADSTS numbers only choose the hint. What the table does not
know is said to be unknown, and shown as it came.

The remedies name keys of our configuration (PRODUCT 3). `{mailbox}`, `{user}` and `{consent}` in a text are filled by
`Explanation.for_`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from proxy.login import Fault, Refusal

Who = Literal["user", "administrator", "operator", "nobody"]
"""Who must act: the mailbox's user, the organisation's administrator, whoever runs mailferry, or nobody: it passes."""

MAX_RAW_CHARACTERS = 160  # CLIENTS 3.1: a foreign text in a reply stays on one line


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

    def for_(self, *, mailbox: str = "", user: str = "", consent: str = "") -> Explanation:
        """The same, said of this mailbox, this signed-in user and this admin consent address."""
        names = {
            "{mailbox}": mailbox or "the mailbox",
            "{user}": user or "the signed-in user",
            "{consent}": consent or "the app's admin consent address",
        }

        def fill(text: str) -> str:
            return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)

        return replace(self, cause=fill(self.cause), remedy=fill(self.remedy))

    @property
    def text(self) -> str:
        """Cause and remedy, as one line."""
        return f"{self.cause} {self.remedy}"


# Whose fault, who must act, and what the mail program is told
_Verdict = tuple[Fault, Who, Refusal]
_OUR_SETTINGS: _Verdict = (Fault.MAILFERRY, "operator", Refusal.MISCONFIGURED)
_SIGN_IN_AGAIN: _Verdict = (Fault.MICROSOFT_SIGN_IN, "user", Refusal.SIGN_IN_NEEDED)
_DIRECTORY_RULE: _Verdict = (Fault.MICROSOFT_SIGN_IN, "administrator", Refusal.SIGN_IN_NEEDED)
_SIGN_IN_PASSES: _Verdict = (Fault.MICROSOFT_SIGN_IN, "nobody", Refusal.TRY_LATER)
_EXCHANGE_RULE: _Verdict = (Fault.EXCHANGE, "administrator", Refusal.REFUSED_UPSTREAM)
_EXCHANGE_PASSES: _Verdict = (Fault.EXCHANGE, "nobody", Refusal.TRY_LATER)

SIGN_IN_EXPLANATIONS: tuple[Explanation, ...] = (  # FACTS 5, rows 1-20, in their order; then FACTS 4.5
    Explanation(
        "Microsoft does not know this application in the account's directory.",
        "Check application_id and account_types; in a foreign directory an administrator must first consent: {consent}",
        *_OUR_SETTINGS,
        codes=(700016, 700011),
        errors=("unauthorized_client",),
    ),
    Explanation(
        "The redirect address is not registered with the app.",
        'In the app registration add exactly http://localhost under "Mobile and desktop applications".',
        *_OUR_SETTINGS,
        codes=(50011,),
    ),
    Explanation(
        "Microsoft expects a client secret from this app.",
        'In the registration set "Allow public client flows" to Yes and use a "Mobile and desktop applications" '
        "redirect address; or configure client_secret.",
        *_OUR_SETTINGS,
        codes=(7000218,),
    ),
    Explanation(
        "The app is a public client, but a client secret was sent.",
        "Remove client_secret from this app's configuration.",
        *_OUR_SETTINGS,
        codes=(700025,),
    ),
    Explanation(
        "The client secret is wrong.",
        "Use the secret's Value, not its Secret ID; if the value is lost, create a new secret.",
        *_OUR_SETTINGS,
        codes=(7000215,),
    ),
    Explanation(
        "The client secret has expired.",
        "Create a new client secret in the app registration and put it into client_secret.",
        *_OUR_SETTINGS,
        codes=(7000222,),
    ),
    Explanation(
        "The app belongs to one organisation only, but was asked for on the address for all.",
        "Set account_types to your directory id or domain, or make the app multi-tenant.",
        *_OUR_SETTINGS,
        codes=(50194,),
    ),
    Explanation(
        "The app is for personal accounts only.",
        "Set account_types to consumers.",
        *_OUR_SETTINGS,
        codes=(9002331,),
    ),
    Explanation(
        "This kind of account does not fit the app.",
        "For work accounts set account_types to organizations or to the directory; "
        "or sign in with an account of the kind that the app allows.",
        *_OUR_SETTINGS,
        codes=(9002332, 50020, 500208),
    ),
    Explanation(
        "Microsoft knows no such directory, or not in this cloud.",
        "Check the directory id or domain in account_types, and the app's cloud setting.",
        *_OUR_SETTINGS,
        codes=(90002,),
    ),
    Explanation(
        "The app was not given consent, or it was declined.",
        "Sign in again as {user} and accept, or ask an administrator to consent: {consent}",
        *_SIGN_IN_AGAIN,
        codes=(65001, 65004),
        errors=("consent_required", "access_denied", "authorization_declined"),
    ),
    Explanation(
        "Your organisation lets only an administrator consent to this app.",
        "Ask an administrator to open {consent} and accept; then sign in again.",
        *_DIRECTORY_RULE,
        codes=(90094, 90095),
        errors=("admin_consent_required",),
    ),
    Explanation(
        "The app asks for permissions that it does not have, or that do not go together.",
        "Use the outlook.office.com permissions only, and add them to the app registration's API permissions.",
        *_OUR_SETTINGS,
        codes=(70011, 28002, 650057, 700022),
        errors=("invalid_scope", "invalid_resource"),
    ),
    Explanation(
        "Microsoft wants a second proof of who {user} is.",
        "Sign in again as {user}, in a browser.",
        *_SIGN_IN_AGAIN,
        codes=(50076, 50079, 50074, 50078),
        errors=("basic_action", "additional_action", "interaction_required"),
    ),
    Explanation(
        "The password of {user} was changed, or the sign-in was revoked.",
        "Sign in again as {user}.",
        *_SIGN_IN_AGAIN,
        codes=(50173, 50132, 50133),
        errors=("user_password_expired",),
    ),
    Explanation(
        "The sign-in of {user} has expired.",
        "Sign in again as {user}.",
        *_SIGN_IN_AGAIN,
        codes=(700082, 70008, 70043, 70000),
        errors=("bad_token", "token_expired", "invalid_grant", "login_required"),
    ),
    Explanation(
        "Your organisation's rules block this sign-in.",
        "Try the browser sign-in instead of the device code; otherwise ask your administrator.",
        *_DIRECTORY_RULE,
        codes=(53003, 53000, 53001, 53002, 53004, 530032, 530035),
    ),
    Explanation(
        "{user} is not assigned to the app.",
        "Ask an administrator to assign {user} to the enterprise application; then sign in again.",
        *_DIRECTORY_RULE,
        codes=(50105,),
    ),
    Explanation(
        "Microsoft was asked the same too often and wants a pause.",
        "Wait five minutes; mailferry tries again by itself.",
        *_SIGN_IN_PASSES,
        codes=(50196,),
    ),
    Explanation(
        "The device code was not entered, was mistyped, or has expired.",
        "Enter the code as shown; if it is older than 15 minutes, start the sign-in again.",
        Fault.CLIENT,
        "user",
        Refusal.SIGN_IN_NEEDED,
        codes=(70016, 70018, 70019),
        errors=("authorization_pending", "expired_token", "bad_verification_code"),
    ),
    Explanation(
        "Microsoft has locked the account after too many wrong passwords.",
        "Wait, then sign in again as {user}; if it stays locked, ask your administrator.",
        *_DIRECTORY_RULE,
        codes=(50053,),
    ),
    Explanation(
        "Microsoft's sign-in service has a temporary problem.",
        "Nothing is wrong with your password; mailferry tries again by itself.",
        *_SIGN_IN_PASSES,
        codes=(90033, 90024, 50033, 90006, 70012),
        errors=("temporarily_unavailable", "server_error", "slow_down"),
    ),
    Explanation(
        "Microsoft did not accept the app's client secret or certificate.",
        "Compare client_secret or certificate with the app registration; a public client has neither.",
        *_OUR_SETTINGS,
        errors=("invalid_client",),
    ),
    Explanation(
        "Microsoft could not read what mailferry asked.",
        "Check the app's configuration with `mailferry check`; if it is right, please report this as a bug.",
        *_OUR_SETTINGS,
        errors=("invalid_request", "unsupported_grant_type", "unsupported_response_type"),
    ),
)

EXCHANGE_EXPLANATIONS: tuple[Explanation, ...] = (  # the first that fits is taken, so the exact ones stand first
    Explanation(  # FACTS 5, row 22; 2.3
        "Exchange accepted the sign-in of {user} but opens no mailbox for it.",
        "Grant {user} Full Access to {mailbox}; if it worked before, wait and use fewer connections.",
        Fault.EXCHANGE,
        "administrator",
        Refusal.TRY_LATER,
        pattern=r"authenticated but not connected",
        protocols=("imap",),
    ),
    Explanation(  # row 23; 2.4
        "Sending with a login (SMTP AUTH) is switched off for {mailbox} or for the whole organisation.",
        "Administrator: Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false (allow an hour).",
        *_EXCHANGE_RULE,
        pattern=r"SmtpClientAuth\w* is disabled|smtp_auth_disabled",
        protocols=("smtp",),
    ),
    Explanation(  # 2.3, 2.4: a password reached Exchange; mailferry sends none
        "Exchange was offered a password instead of a token.",
        "Please report this as a bug of mailferry, with the log of this session.",
        *_OUR_SETTINGS,
        pattern=r"basic authentication is disabled",
    ),
    Explanation(  # 2.4
        "Your organisation's security defaults lock {user} out.",
        "Ask your administrator to allow authenticated SMTP for {user}.",
        *_EXCHANGE_RULE,
        pattern=r"security defaults policy",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4
        "A Conditional Access rule of your organisation refuses this connection.",
        "Ask your administrator to exempt {user}, or this machine, from the rule.",
        *_EXCHANGE_RULE,
        pattern=r"did not meet the criteria to be authenticated|5\.7\.139",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4: the high-volume endpoint wants ten minutes of life left
        "The access token would expire too soon for Exchange.",
        "Nothing to do: mailferry fetches a fresh token; try again.",
        *_EXCHANGE_PASSES,
        pattern=r"5\.5\.127|token will expire soon",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4
        "Exchange could not read the token that mailferry sent.",
        "Sign in again as {user}; if it stays, please report this as a bug of mailferry.",
        Fault.MAILFERRY,
        "operator",
        Refusal.REFUSED_UPSTREAM,
        pattern=r"5\.5\.124|invalid xoauth2",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4
        "Exchange was asked to take a message before the login.",
        "Please report this as a bug of mailferry, with the log of this session.",
        Fault.MAILFERRY,
        "operator",
        Refusal.TRY_LATER,
        pattern=r"5\.7\.57|client not authenticated",
        protocols=("smtp",),
    ),
    Explanation(  # row 25; 2.4
        "{user} may not send under this From address.",
        "Grant {user} Send As on that address, or change the From address in the mail program.",
        *_EXCHANGE_RULE,
        pattern=r"5\.2\.252|5\.7\.60\b|SendAsDenied",
        protocols=("smtp",),
    ),
    Explanation(  # row 24; 2.4, 2.6
        "Exchange refused the token: the name said with it is not the signed-in one, or the right to send is missing.",
        "Set sign_in to the name that signed in ({user}); a shared mailbox sends as its delegate. Check SMTP.Send.",
        Fault.EXCHANGE,
        "operator",
        Refusal.REFUSED_UPSTREAM,
        pattern=r"5\.7\.3\b|authentication unsuccessful",
        protocols=("smtp",),
    ),
    Explanation(  # 3.1
        "{user} has sent to as many people today as Exchange allows (10,000).",
        "Wait until tomorrow.",
        Fault.EXCHANGE,
        "user",
        Refusal.TRY_LATER,
        pattern=r"SubmissionQuotaExceeded",
        protocols=("smtp",),
    ),
    Explanation(  # 3.1
        "The mailbox {mailbox} is full.",
        "Delete mail, or ask your administrator for more space.",
        Fault.EXCHANGE,
        "user",
        Refusal.REFUSED_UPSTREAM,
        pattern=r"5\.2\.2\b|mailbox (is )?full",
    ),
    Explanation(  # row 26; 3.1, 3.2
        "Exchange has too many connections or requests of {mailbox} at once.",
        "The mail program will try again; lower imap_connections or smtp_connections if it stays.",
        Fault.EXCHANGE,
        "nobody",
        Refusal.BUSY,
        pattern=r"432 4\.3\.2|throttl|thread limit exceeded|concurrent connections|connection closed\. 14",
    ),
    Explanation(  # row 27
        "The app may not open the mailbox {mailbox}.",
        "Administrator: run Add-MailboxPermission and Add-RecipientPermission for the app's service principal.",
        *_EXCHANGE_RULE,
        pattern=r"430 4\.2\.0|mailbox logon failure",
    ),
    Explanation(  # 2.4
        "Exchange has a temporary problem.",
        "Nothing is wrong with your password; the mail program will try again.",
        *_EXCHANGE_PASSES,
        pattern=r"451 4\.7\.0|temporary server error|4\.3\.111|4\.3\.2 service not active|service not active",
    ),
    Explanation(  # 3.3
        "Exchange ended the session because its access token ran out.",
        "Nothing to do: the mail program connects again and gets a fresh token.",
        *_EXCHANGE_PASSES,
        pattern=r"AccessTokenExpired|session invalidated|in invalid state",
    ),
    Explanation(  # 3.2
        "Exchange closed a connection that had been idle.",
        "Nothing to do: the mail program connects again.",
        *_EXCHANGE_PASSES,
        pattern=r"connection is closed\. 13",
        protocols=("imap",),
    ),
    Explanation(  # 2.5: more than 4096 characters, unresolved at Microsoft since July 2025
        "Exchange's POP3 service broke off at the token; it takes none longer than 4096 characters.",
        "Use IMAP for this mailbox, or ask your administrator to put {user} into fewer groups.",
        *_EXCHANGE_RULE,
        pattern=r"protocol error",
        protocols=("pop3",),
    ),
    Explanation(  # row 21; 2.3, 2.5; also the JSON challenge of a failed XOAUTH2
        "Exchange refused the token: it is another user's, lacks the right, or the protocol is switched off.",
        "Check that {user} signed in, may open {mailbox}, and that IMAP or POP is enabled for it (Set-CASMailbox).",
        *_EXCHANGE_RULE,
        pattern=r'authenticate failed|authentication failure|logon failure|"status" ?: ?"40\d"',
    ),
)

_TEMPORARY = ("temporarily_unavailable", "server_error")
_BY_CODE = {code: row for row in SIGN_IN_EXPLANATIONS for code in row.codes}
_BY_ERROR = {error: row for row in SIGN_IN_EXPLANATIONS for error in row.errors}


def explain_sign_in(error: str, codes: Sequence[int], suberror: str = "") -> Explanation:
    """What an error of the sign-in service means: its `error`, AADSTS numbers and `suberror` (FACTS 4.5).

    The first known number says most, except where the error itself says that it passes; then `suberror`, then `error`.
    An unknown one keeps the sign-in: it is to be tried again later.
    """
    if error in _TEMPORARY:
        return _BY_ERROR[error]
    rows = [_BY_CODE.get(code) for code in codes] + [_BY_ERROR.get(suberror), _BY_ERROR.get(error)]
    for row in rows:
        if row is not None:
            return row
    raw = " ".join(word for word in (error, *(f"AADSTS{code}" for code in codes), suberror) if word)
    more = f" Its meaning: https://login.microsoftonline.com/error?code={codes[0]}" if codes else ""
    return _unknown(
        f"Microsoft's sign-in service gave an error that mailferry does not know: {_raw(raw)}.{more}",
        Fault.MICROSOFT_SIGN_IN,
    )


def aadsts_codes(description: str) -> tuple[int, ...]:
    """The AADSTS numbers in an `error_description`: a redirect carries them nowhere else."""
    return tuple(int(digits) for digits in re.findall(r"AADSTS(\d{1,9})", description))


def explain_exchange(protocol: str, text: str) -> Explanation:
    """What a reply of Exchange means; `protocol` is `imap`, `pop3` or `smtp`."""
    for row in EXCHANGE_EXPLANATIONS:
        if protocol in row.protocols and re.search(row.pattern, text, re.IGNORECASE):
            return row
    return _unknown(f"Exchange gave an answer that mailferry does not know: {_raw(text)}", Fault.EXCHANGE)


def _unknown(cause: str, fault: Fault) -> Explanation:
    remedy = "Nothing is lost; mailferry tries again. If it stays, run `mailferry doctor` and show this line."
    return Explanation(cause, remedy, fault, "operator", Refusal.TRY_LATER, known=False)


def _raw(text: str) -> str:
    """One line of printable ASCII, bounded."""
    line = " ".join("".join(c if " " < c <= "~" else " " if c.isspace() else "?" for c in text).split())
    return line[:MAX_RAW_CHARACTERS] or "(nothing)"
