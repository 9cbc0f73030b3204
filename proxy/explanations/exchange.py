"""What Exchange says no with: literal texts on IMAP, POP3 and SMTP (FACTS 5 rows 21-27; 2.3-2.5, 3.1-3.3).

What it is: the rows, and their look-up. What it is not: a decision whether to try again; the dialogues in
`protocols/` sort the replies, and `network/` acts on that. Who calls it: `network/`, for a refused login and for what
it overhears.
"""

from __future__ import annotations

import re

from proxy.explanations.row import EXCHANGE_PASSES, EXCHANGE_RULE, OUR_SETTINGS, Explanation, raw, unknown
from proxy.login import Fault, Refusal

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
        *EXCHANGE_RULE,
        pattern=r"SmtpClientAuth\w* is disabled|smtp_auth_disabled",
        protocols=("smtp",),
    ),
    Explanation(  # 2.3, 2.4: a password reached Exchange; mailferry sends none
        "Exchange was offered a password instead of a token.",
        "Please report this as a bug of mailferry, with the log of this session.",
        *OUR_SETTINGS,
        pattern=r"basic authentication is disabled",
    ),
    Explanation(  # 2.4
        "Your organisation's security defaults lock {user} out.",
        "Ask your administrator to allow authenticated SMTP for {user}.",
        *EXCHANGE_RULE,
        pattern=r"security defaults policy",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4
        "A Conditional Access rule of your organisation refuses this connection.",
        "Ask your administrator to exempt {user}, or this machine, from the rule.",
        *EXCHANGE_RULE,
        pattern=r"did not meet the criteria to be authenticated|5\.7\.139",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4: the high-volume endpoint wants ten minutes of life left
        "The access token would expire too soon for Exchange.",
        "Nothing to do: mailferry fetches a fresh token; try again.",
        *EXCHANGE_PASSES,
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
        *EXCHANGE_RULE,
        pattern=r"5\.2\.252|5\.7\.60\b|SendAsDenied",
        protocols=("smtp",),
    ),
    Explanation(  # row 24; 2.4, 2.6
        "Exchange refused the token: the name said with it is not the signed-in one, or the right to send is missing.",
        "Set sign_in to the name that signed in at Microsoft (now: {user}); a shared mailbox sends as its delegate. "
        "Check that the app has SMTP.Send.",
        Fault.EXCHANGE,
        "operator",
        Refusal.REFUSED_UPSTREAM,
        pattern=r"5\.7\.3\b|authentication unsuccessful",
        protocols=("smtp",),
    ),
    Explanation(  # 2.4: servers that are not Exchange
        "The mail server takes no token as long as this one.",
        "Check upstreams in mailferry's configuration: it should name Exchange Online, which takes long tokens.",
        *OUR_SETTINGS,
        pattern=r"5\.5\.2\b.*line too long",
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
        "Administrator: run Add-MailboxPermission and Add-RecipientPermission for the app's service principal "
        "(mailferry administrator {login} prints the lines).",
        *EXCHANGE_RULE,
        pattern=r"430 4\.2\.0|mailbox logon failure",
    ),
    Explanation(  # 2.4
        "Exchange has a temporary problem.",
        "Nothing is wrong with your password; the mail program will try again.",
        *EXCHANGE_PASSES,
        pattern=r"45[14] 4\.7\.0|temporary server error|4\.3\.111|service not active|server (is )?busy",
    ),
    Explanation(  # 3.3
        "Exchange ended the session because its access token ran out.",
        "Nothing to do: the mail program connects again and gets a fresh token.",
        *EXCHANGE_PASSES,
        pattern=r"AccessTokenExpired|session invalidated|in invalid state",
    ),
    Explanation(  # 3.2
        "Exchange closed a connection that had been idle.",
        "Nothing to do: the mail program connects again.",
        *EXCHANGE_PASSES,
        pattern=r"connection is closed\. 13",
        protocols=("imap",),
    ),
    Explanation(  # 2.5: more than 4096 characters, unresolved at Microsoft since July 2025
        "Exchange's POP3 service broke off at the token; it takes none longer than 4096 characters.",
        "Use IMAP for this mailbox, or ask your administrator to put {user} into fewer groups.",
        *EXCHANGE_RULE,
        pattern=r"protocol error",
        protocols=("pop3",),
    ),
    Explanation(  # row 21; 2.3, 2.5; also the JSON challenge of a failed XOAUTH2
        "Exchange refused the token: it is another user's, lacks the right, or the protocol is switched off.",
        "Check that {user} signed in and may open {mailbox}, and that IMAP or POP is enabled for it "
        "(administrator: Set-CASMailbox; Outlook.com: Settings > Mail > Forwarding and IMAP).",
        *EXCHANGE_RULE,
        pattern=r'authenticate failed|authentication failure|logon failure|"status" ?: ?"40\d"',
    ),
)


def explain_exchange(protocol: str, text: str) -> Explanation:
    """What a reply of Exchange means; `protocol` is `imap`, `pop3` or `smtp`."""
    for row in EXCHANGE_EXPLANATIONS:
        if protocol in row.protocols and re.search(row.pattern, text, re.IGNORECASE):
            return row
    return unknown(f"Exchange gave an answer that mailferry does not know: {raw(text)}", Fault.EXCHANGE)
