"""The 27 rows of FACTS section 5 as data: what each sounds like on the wire, and what a person must read of it.

What it is not: our own table; the words here are written down independently of it. `faulty.py` plants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.end_to_end.exchange import OFFERS, Part, Wire

Met = Literal["page", "redirect", "redeem", "device", "device start", "discovery"]
"""Where a person meets it who signs in: on Microsoft's own page, in its redirect, in what comes after, …"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a login is refused, whose fault it is, who must act, and how the account is then."""

    reason: str
    fault: str
    who: str
    state: str = ""


OURS = Verdict("misconfigured", "mailferry", "operator")
SIGN_IN_AGAIN = Verdict("sign_in_needed", "microsoft_sign_in", "user")
DIRECTORY = Verdict("sign_in_needed", "microsoft_sign_in", "administrator")
PASSES = Verdict("try_later", "microsoft_sign_in", "nobody")
PERSON = Verdict("sign_in_needed", "client", "user")

WHO = {  # who must act, as `account show` says it, and what the page says of it
    "user": "the mailbox's owner",
    "administrator": "the organisation's administrator",
    "operator": "you, who run mailferry",
    "nobody": "nobody",
}


@dataclass(frozen=True, slots=True)
class SignInFault:
    """A row of FACTS 5, 1-20: the service's numbers, and words of what is to be read of it.

    `remedy` is of FACTS' "one-line fix". `LOGIN` stands for the account's.
    """

    row: int
    codes: tuple[int, ...]
    cause: str
    remedy: str
    verdict: Verdict
    met: Met

    def __str__(self) -> str:
        return f"row {self.row}: AADSTS{self.codes[0]}"


SIGN_IN_FAULTS = (
    SignInFault(1, (700016, 700011), "does not know this application", "mailferry app change work", OURS, "page"),
    SignInFault(2, (50011,), "redirect address is not registered", "exactly http://localhost under ", OURS, "page"),
    SignInFault(3, (7000218,), "expects a client secret", "Allow public client flows", OURS, "redeem"),
    SignInFault(4, (700025,), "public client", "Remove client_secret", OURS, "redeem"),
    SignInFault(5, (7000215,), "client secret is wrong", "Value, not its Secret ID", OURS, "redeem"),
    SignInFault(6, (7000222,), "client secret has expired", "Create a new client secret", OURS, "redeem"),
    SignInFault(7, (50194,), "one organisation only", "account_types to your directory id", OURS, "page"),
    SignInFault(8, (9002331,), "personal accounts only", "account_types to consumers", OURS, "page"),
    SignInFault(9, (9002332, 50020, 500208), "does not fit the app", "account_types to organizations", OURS, "page"),
    SignInFault(10, (90002,), "knows no such directory", "and cloud", OURS, "discovery"),
    SignInFault(
        11, (65001, 65004), "not given consent", "Sign in again as LOGIN and accept", SIGN_IN_AGAIN, "redirect"
    ),
    SignInFault(
        12, (90094, 90095), "only an administrator consent", "/v2.0/adminconsent?client_id=", DIRECTORY, "redirect"
    ),
    SignInFault(
        13,
        (70011, 28002, 650057, 700022),
        "asks for permissions",
        "outlook.office.com permissions only",
        OURS,
        "redirect",
    ),
    SignInFault(14, (50076, 50079, 50074, 50078), "second proof", "mailferry sign-in LOGIN", SIGN_IN_AGAIN, "redeem"),
    SignInFault(
        15,
        (50173, 50132, 50133),
        "was changed, or the sign-in was revoked",
        "mailferry sign-in LOGIN",
        SIGN_IN_AGAIN,
        "redeem",
    ),
    SignInFault(16, (700082, 70008, 70043, 70000), "has expired", "mailferry sign-in LOGIN", SIGN_IN_AGAIN, "redeem"),
    SignInFault(
        17,
        (53003, 53000, 530032, 530035),
        "organisation's rules block",
        "browser sign-in instead of the device code",
        DIRECTORY,
        "device",
    ),
    SignInFault(
        18, (50105,), "LOGIN is not assigned to the app", "Ask an administrator to assign LOGIN", DIRECTORY, "page"
    ),
    SignInFault(19, (50196,), "wants a pause", "five minutes", PASSES, "device start"),
    SignInFault(
        20,
        (70019, 70018, 70016),
        "device code was not entered, was mistyped, or has expired",
        "15 minutes",
        PERSON,
        "device",
    ),
)

EXCHANGE_RULE = Verdict("refused_upstream", "exchange", "administrator", "authentication_error")
WRONG_NAME = Verdict("refused_upstream", "exchange", "operator", "authentication_error")
NO_MAILBOX = Verdict("try_later", "exchange", "administrator", "connect_error")
BUSY = Verdict("busy", "exchange", "nobody", "connect_error")
MESSAGE_REFUSED = Verdict("", "exchange", "administrator", "connected")


@dataclass(frozen=True, slots=True)
class ExchangeFault:
    """A row of FACTS 5, 21-27: Exchange's literal words, and words of what is to be read of it."""

    row: int
    protocol: str
    said: bytes
    at: Literal["login", "mailbox", "message"]
    """Said to the token, to the first command behind an accepted token, or to a message."""
    cause: str
    remedy: str
    verdict: Verdict
    connections: int = 1
    """That the daemon makes for one login: it looks again where that may help."""

    def __str__(self) -> str:
        return f"row {self.row}: {self.protocol}, {self.said[:24].decode()}"


EXCHANGE_FAULTS = (
    ExchangeFault(
        21,
        "imap",
        b"NO AUTHENTICATE failed.",
        "login",
        "Exchange refused the token",
        "IMAP or POP is enabled",
        EXCHANGE_RULE,
        2,
    ),
    ExchangeFault(
        21,
        "pop3",
        b"-ERR Authentication failure: unknown user name or bad password.",
        "login",
        "Exchange refused the token",
        "IMAP or POP is enabled",
        EXCHANGE_RULE,
        2,
    ),
    ExchangeFault(
        22,
        "imap",
        b"BAD User is authenticated but not connected.",
        "mailbox",
        "opens no mailbox",
        "Grant LOGIN Full Access to LOGIN",
        NO_MAILBOX,
        2,
    ),
    ExchangeFault(
        23,
        "smtp",
        b"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
        b"Visit https://aka.ms/smtp_auth_disabled for more information. [AM0PR01CA0001.eurprd01.prod.outlook.com]",
        "login",
        "(SMTP AUTH) is switched off",
        "Set-CASMailbox -Identity LOGIN -SmtpClientAuthenticationDisabled $false (allow an hour)",
        EXCHANGE_RULE,
        2,
    ),
    ExchangeFault(
        24,
        "smtp",
        b"535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.outlook.com 2026-11-03T10:00:00.0Z 08]",
        "login",
        "the name said with it is not the signed-in one",
        "Set sign_in to the name that signed in",
        WRONG_NAME,
        2,
    ),
    ExchangeFault(
        25,
        "smtp",
        b"554 5.2.252 SendAsDenied; LOGIN not allowed to send as boss",
        "message",
        "may not send under this From",
        "Grant LOGIN Send As",
        MESSAGE_REFUSED,
        1,
    ),
    ExchangeFault(
        25,
        "smtp",
        b"554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process",
        "message",
        "may not send under this From",
        "Grant LOGIN Send As",
        MESSAGE_REFUSED,
        1,
    ),
    ExchangeFault(
        26,
        "imap",
        b"BAD Request is throttled. Suggested Backoff Time: 1 milliseconds",
        "login",
        "too many connections or requests",
        "lower imap_connections or smtp_connections",
        BUSY,
        1,
    ),
    ExchangeFault(
        26,
        "smtp",
        b"432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        "message",
        "too many connections or requests",
        "lower imap_connections or smtp_connections",
        BUSY,
        1,
    ),
    ExchangeFault(
        26,
        "smtp",
        b"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending [Hostname=A]",
        "login",
        "too many connections or requests",
        "lower imap_connections or smtp_connections",
        BUSY,
        1,
    ),
    ExchangeFault(
        27,
        "smtp",
        b"430 4.2.0 STOREDRV; mailbox logon failure; failure processing MapiExceptionLogonFailed. Cannot open mailbox",
        "message",
        "may not open the mailbox",
        "run Add-MailboxPermission and Add-RecipientPermission",
        MESSAGE_REFUSED,
        1,
    ),
)
UNKNOWN = Verdict("refused_upstream", "exchange", "operator", "authentication_error")


# What the scripted Exchange does


def part(fault: ExchangeFault) -> Part:
    """One connection on which it says this."""
    return {"imap": _imap, "pop3": _pop3, "smtp": _smtp}[fault.protocol](fault)


def _imap(fault: ExchangeFault) -> Part:
    def play(wire: Wire) -> bytes:
        wire.send(b"* OK The Microsoft Exchange IMAP4 service is ready. [SABFADEAUAA=]\r\n")
        tag = wire.line().split(b" ")[0]
        if fault.at == "mailbox":
            wire.send(tag + b" OK AUTHENTICATE completed.\r\n")
            tag = wire.line().split(b" ")[0]
            wire.send(tag + b" " + fault.said + b"\r\n* BYE Connection closed. 14\r\n")
        else:
            wire.send(tag + b" " + fault.said + b"\r\n")
        return wire.rest()

    return play


def _pop3(fault: ExchangeFault) -> Part:
    def play(wire: Wire) -> bytes:
        wire.send(b"+OK The Microsoft Exchange POP3 service is ready. [TABPADYAUAAyADYANQA=]\r\n")
        wire.expect(b"AUTH XOAUTH2\r\n")
        wire.send(b"+ \r\n")
        wire.line()
        wire.send(fault.said + b"\r\n")
        return wire.rest()

    return play


def _smtp(fault: ExchangeFault) -> Part:
    def play(wire: Wire) -> bytes:
        wire.send(b"220 AM0PR01CA0001.outlook.office365.com Microsoft ESMTP MAIL Service ready\r\n")
        wire.expect(b"EHLO mail.test\r\n")
        keywords = OFFERS["smtp"]
        wire.send("".join(f"250-{line}\r\n" for line in ["Hello", *keywords[:-1]]).encode())
        wire.send(f"250 {keywords[-1]}\r\n".encode())
        wire.expect(b"AUTH XOAUTH2\r\n")
        wire.send(b"334 \r\n")
        wire.line()
        if fault.at == "login":
            wire.send(fault.said + b"\r\n")
            return wire.rest()
        wire.send(b"235 2.7.0 Authentication successful\r\n")
        while wire.line().upper() != b"DATA":
            wire.send(b"250 2.1.0 OK\r\n")
        wire.send(b"354 Start mail input; end with <CRLF>.<CRLF>\r\n")
        while wire.line() != b".":
            pass
        wire.send(fault.said + b"\r\n")
        while wire.line().upper() != b"QUIT":
            wire.send(b"250 2.0.0 Resetting\r\n")
        wire.send(b"221 2.0.0 Service closing transmission channel\r\n")
        return wire.rest()

    return play
