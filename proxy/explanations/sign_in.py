"""What Microsoft's sign-in service says no with: its OAuth errors and AADSTS numbers (FACTS 5 rows 1-20; 1.2-1.7, 4.5).

What it is: the rows in FACTS' order, then those that FACTS names elsewhere or Microsoft's own list does, and their
look-up. What it is not: a decision what becomes of a grant; `accounts/outcomes.py` sorts by what stands here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxy.explanations.row import (
    DIRECTORY_RULE,
    OUR_SETTINGS,
    SIGN_IN_AGAIN,
    SIGN_IN_PASSES,
    SIGN_IN_RIGHT,
    Explanation,
    raw,
    unknown,
)
from proxy.login import Fault

SIGN_IN_EXPLANATIONS: tuple[Explanation, ...] = (
    Explanation(  # 1
        "Microsoft does not know this application in the account's directory.",
        "Check application_id and account_types (mailferry app change {app} --application-id GUID). "
        "In a foreign directory an administrator must first consent: {consent}",
        *OUR_SETTINGS,
        codes=(700016, 700011),
        errors=("unauthorized_client",),
    ),
    Explanation(  # 2; 1.3
        "The redirect address is not registered with the app.",
        'In the app registration add exactly http://localhost under "Mobile and desktop applications".',
        *OUR_SETTINGS,
        codes=(50011, 500112, 500113),
    ),
    Explanation(  # 3; 1.3
        "Microsoft expects a client secret from this app.",
        'In the registration set "Allow public client flows" to Yes and use a "Mobile and desktop applications" '
        "redirect address; or give client_secret: mailferry app change {app} --client-secret-stdin",
        *OUR_SETTINGS,
        codes=(7000218,),
    ),
    Explanation(  # 4; 1.3
        "The app is a public client, but a client secret was sent.",
        "Remove client_secret from the app: mailferry app change {app} --no-client-secret",
        *OUR_SETTINGS,
        codes=(700025,),
    ),
    Explanation(  # 5; 1.3
        "The client secret is wrong.",
        "Use the secret's Value, not its Secret ID; if the value is lost, create a new secret. "
        "Then: mailferry app change {app} --client-secret-stdin",
        *OUR_SETTINGS,
        codes=(7000215,),
    ),
    Explanation(  # 6; 1.3
        "The client secret has expired.",
        "Create a new client secret in the app registration and put its Value into client_secret: "
        "mailferry app change {app} --client-secret-stdin",
        *OUR_SETTINGS,
        codes=(7000222,),
    ),
    Explanation(  # 7; 1.2
        "The app belongs to one organisation only, but was asked for on the address for all.",
        "Set account_types to your directory id or domain (mailferry app change {app} --account-types DOMAIN), "
        "or make the app multi-tenant.",
        *OUR_SETTINGS,
        codes=(50194,),
    ),
    Explanation(  # 8; 1.2
        "The app is for personal accounts only.",
        "Set account_types to consumers: mailferry app change {app} --account-types consumers",
        *OUR_SETTINGS,
        codes=(9002331,),
    ),
    Explanation(  # 9; 1.2
        "This kind of account does not fit the app.",
        "For work accounts set account_types to organizations or to the directory "
        "(mailferry app change {app} --account-types organizations); or sign in with an account that the app allows.",
        *OUR_SETTINGS,
        codes=(9002332, 50020, 500208, 16000, 16003, 90072),
    ),
    Explanation(  # 10
        "Microsoft knows no such directory, or not in this cloud.",
        "Check the directory id or domain in account_types, and cloud: mailferry app change {app} --account-types ID",
        *OUR_SETTINGS,
        codes=(90002, 50059, 50128, 90019, 90038, 900382),
    ),
    Explanation(  # 11; 1.4, 1.5
        "The app was not given consent, or it was declined.",
        "Sign in again as {user} and accept (mailferry sign-in {login}), or ask an administrator to consent: {consent}",
        *SIGN_IN_AGAIN,
        codes=(65001, 65004),
        errors=("consent_required", "access_denied", "authorization_declined"),
    ),
    Explanation(  # 12; 1.5
        "Your organisation lets only an administrator consent to this app.",
        "Ask an administrator to open {consent} and accept (mailferry administrator {login} writes the request); "
        "then: mailferry sign-in {login}",
        *DIRECTORY_RULE,
        codes=(90094, 90095),
        errors=("admin_consent_required",),
    ),
    Explanation(  # 13; 1.4
        "The app asks for permissions that it does not have, or that do not go together.",
        "Use the outlook.office.com permissions only, and add them to the app registration's API permissions.",
        *OUR_SETTINGS,
        codes=(70011, 28002, 28003, 650057, 650053, 65005, 700022),
        errors=("invalid_scope", "invalid_resource"),
    ),
    Explanation(  # 14
        "Microsoft wants a second proof of who {user} is.",
        "Sign in again as {user}, in a browser: mailferry sign-in {login}",
        *SIGN_IN_AGAIN,
        codes=(50076, 50079, 50074, 50078, 50072, 50158),
        errors=("basic_action", "additional_action", "interaction_required"),
    ),
    Explanation(  # 15; 3.3
        "The password of {user} was changed, or the sign-in was revoked.",
        "Sign in again as {user}: mailferry sign-in {login}",
        *SIGN_IN_AGAIN,
        codes=(50173, 50132, 50133, 50055, 50144),
        errors=("user_password_expired",),
    ),
    Explanation(  # 16; 1.4, 3.3
        "The sign-in of {user} has expired, or no longer covers what is asked for.",
        "Sign in again as {user}: mailferry sign-in {login}",
        *SIGN_IN_AGAIN,
        codes=(700082, 70008, 70043, 70000, 700084, 70044),
        errors=("bad_token", "token_expired", "invalid_grant", "login_required"),
    ),
    Explanation(  # 17; 3.3
        "Your organisation's rules block this sign-in.",
        "Try the browser sign-in instead of the device code (mailferry sign-in {login} --browser); "
        "otherwise ask your administrator.",
        *DIRECTORY_RULE,
        codes=(53003, 53000, 53001, 53002, 53004, 530032, 530035, 53009, 53011, 50005, 50097, 50129, 50131),
    ),
    Explanation(  # 18
        "{user} is not assigned to the app.",
        "Ask an administrator to assign {user} to the enterprise application; then: mailferry sign-in {login}",
        *DIRECTORY_RULE,
        codes=(50105,),
    ),
    Explanation(  # 19; 3.3
        "Microsoft was asked the same too often and wants a pause.",
        "Wait five minutes; mailferry tries again by itself.",
        *SIGN_IN_PASSES,
        codes=(50196,),
    ),
    Explanation(  # 20; 3.3
        "The device code was not entered, was mistyped, or has expired.",
        "Enter the code as shown; if it is older than 15 minutes, start again: mailferry sign-in {login}",
        *SIGN_IN_RIGHT,
        codes=(70016, 70018, 70019),
        errors=("authorization_pending", "expired_token", "bad_verification_code"),
    ),
    # Elsewhere in FACTS
    Explanation(  # 1.2
        "An app that signs in by itself (flow: app_only) must name one directory.",
        "Set account_types to your directory id or domain: mailferry app change {app} --account-types DOMAIN",
        *OUR_SETTINGS,
        codes=(9001023,),
    ),
    Explanation(  # 1.3
        "The redirect address is registered as a single-page application.",
        'Register http://localhost under "Mobile and desktop applications" instead.',
        *OUR_SETTINGS,
        codes=(9002326, 9002327),
    ),
    Explanation(  # 4.5
        "Microsoft has locked the account after too many wrong passwords.",
        "Wait, then sign in again as {user}; if it stays locked, ask your administrator.",
        *DIRECTORY_RULE,
        codes=(50053,),
    ),
    Explanation(  # 4.5
        "Microsoft's sign-in service has a temporary problem.",
        "Nothing is wrong with your password; mailferry tries again by itself.",
        *SIGN_IN_PASSES,
        codes=(90033, 90024, 50033, 90006, 70012, 50000),
        errors=("temporarily_unavailable", "server_error", "slow_down"),
    ),
    Explanation(  # 4.5
        "Microsoft did not accept the app's client secret or certificate.",
        "Compare client_secret or certificate with the app registration; a public client has neither.",
        *OUR_SETTINGS,
        codes=(700027, 700021, 700023, 700030, 50012),
        errors=("invalid_client",),
    ),
    Explanation(  # 4.5
        "Microsoft could not read what mailferry asked.",
        "Check the app's configuration with `mailferry check`; if it is right, please report this as a bug.",
        *OUR_SETTINGS,
        codes=(90014, 9002313, 9002325, 501491, 700054, 70003),
        errors=("invalid_request", "unsupported_grant_type", "unsupported_response_type"),
    ),
    # Microsoft's list of its numbers
    Explanation(
        "The app's proof of itself was not within its time: this machine's clock may be wrong.",
        "Set the clock of this machine; `mailferry doctor` compares it with Microsoft's.",
        *OUR_SETTINGS,
        codes=(700024, 500133),
    ),
    Explanation(
        "This sign-in's code was used already, or belongs to another sign-in.",
        "Start the sign-in again: mailferry sign-in {login}",
        *SIGN_IN_RIGHT,
        codes=(54005, 501481, 50089, 700005),
    ),
    Explanation(
        "User name or password at Microsoft was wrong.",
        "Sign in again as {user}, with the password that Microsoft knows: mailferry sign-in {login}",
        *SIGN_IN_RIGHT,
        codes=(50126, 50034, 50056, 51004),
    ),
    Explanation(
        "The account of {user} is switched off in the organisation's directory.",
        "Ask your administrator to enable {user}; then: mailferry sign-in {login}",
        *DIRECTORY_RULE,
        codes=(50057,),
    ),
    Explanation(
        "The organisation has switched this application off.",
        "Ask an administrator to enable the enterprise application for users to sign in; "
        "then: mailferry sign-in {login}",
        *DIRECTORY_RULE,
        codes=(7000112,),
    ),
    Explanation(
        "The organisation's directory has no Exchange Online, or no licence for it.",
        "Check that {user} belongs to the organisation that holds the mailbox; otherwise ask your administrator.",
        *DIRECTORY_RULE,
        codes=(650052, 500011, 50001),
    ),
    Explanation(
        "A rule of this network keeps its machines out of that directory (tenant restrictions).",
        "Ask the network's administrator to allow the directory, or sign in from another network.",
        *DIRECTORY_RULE,
        codes=(500021, 500022, 50002),
    ),
)

_TEMPORARY = ("temporarily_unavailable", "server_error")
_BY_CODE = {code: row for row in SIGN_IN_EXPLANATIONS for code in row.codes}
_BY_ERROR = {error: row for row in SIGN_IN_EXPLANATIONS for error in row.errors}


def explain_sign_in(error: str, codes: Sequence[int], suberror: str = "", text: str = "") -> Explanation:
    """What an error of the sign-in service means: its `error`, AADSTS numbers and `suberror` (FACTS 4.5).

    The first known number says most, except where the error itself says that it passes; then `suberror`, then `error`.
    An unknown one keeps the sign-in: it is to be tried again later. `text`, its description, only shows what that says.
    """
    if error in _TEMPORARY:
        return _BY_ERROR[error]
    rows = [_BY_CODE.get(code) for code in codes] + [_BY_ERROR.get(suberror), _BY_ERROR.get(error)]
    for row in rows:
        if row is not None:
            return row
    numbers = [f"AADSTS{code}" for code in codes if f"AADSTS{code}" not in text]
    shown = raw(" ".join(word for word in (error, *numbers, suberror, text) if word))
    cause = f"Microsoft's sign-in service gave an error that mailferry does not know: {shown}"
    return unknown(cause, Fault.MICROSOFT_SIGN_IN, meaning_address(codes[0]) if codes else "")


def meaning_address(code: int) -> str:
    """Microsoft's page on an AADSTS number (FACTS 5)."""
    return f"https://login.microsoftonline.com/error?code={code}"


def aadsts_codes(description: str) -> tuple[int, ...]:
    """The AADSTS numbers in an `error_description`: a redirect carries them nowhere else."""
    return tuple(int(digits) for digits in re.findall(r"AADSTS(\d{1,9})", description))
