"""The explanations: every error that FACTS lists is known, and said with its cause, whose fault it is, and a remedy.

The rows are `sign_in.py` and `exchange.py`, what can be said with one is `row.py`.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.cli import parser
from proxy.explanations import (
    EXCHANGE_EXPLANATIONS,
    MAX_RAW_CHARACTERS,
    MAX_TOLD_CHARACTERS,
    SIGN_IN_EXPLANATIONS,
    Explanation,
    aadsts_codes,
    explain_exchange,
    explain_sign_in,
)
from proxy.login import Fault, Refusal

TABLE = (*SIGN_IN_EXPLANATIONS, *EXCHANGE_EXPLANATIONS)

# FACTS 5, rows 1-20; then 1.2, 1.3, 4.5, and further ones of Microsoft's own list:
# numbers, what the login is refused as, and words that the remedy must hold.
SIGN_IN_ROWS: list[tuple[list[int], Refusal, str]] = [
    ([700016, 700011], Refusal.MISCONFIGURED, "application_id"),
    ([50011], Refusal.MISCONFIGURED, "http://localhost"),
    ([7000218], Refusal.MISCONFIGURED, "Allow public client flows"),
    ([700025], Refusal.MISCONFIGURED, "Remove client_secret"),
    ([7000215], Refusal.MISCONFIGURED, "not its Secret ID"),
    ([7000222], Refusal.MISCONFIGURED, "new client secret"),
    ([50194], Refusal.MISCONFIGURED, "directory id"),
    ([9002331], Refusal.MISCONFIGURED, "consumers"),
    ([9002332, 50020, 500208], Refusal.MISCONFIGURED, "organizations"),
    ([90002], Refusal.MISCONFIGURED, "cloud"),
    ([65001, 65004], Refusal.SIGN_IN_NEEDED, "accept"),
    ([90094, 90095], Refusal.SIGN_IN_NEEDED, "{consent}"),
    ([70011, 28002, 650057, 700022], Refusal.MISCONFIGURED, "outlook.office.com"),
    ([50076, 50079, 50074, 50078], Refusal.SIGN_IN_NEEDED, "Sign in again"),
    ([50173, 50132, 50133], Refusal.SIGN_IN_NEEDED, "Sign in again"),
    ([700082, 70008, 70043, 70000], Refusal.SIGN_IN_NEEDED, "Sign in again"),
    ([53003, 53000, 530032, 530035], Refusal.SIGN_IN_NEEDED, "browser"),
    ([50105], Refusal.SIGN_IN_NEEDED, "assign {user}"),
    ([50196], Refusal.TRY_LATER, "five minutes"),
    ([70016, 70018, 70019], Refusal.SIGN_IN_NEEDED, "15 minutes"),
    ([9001023], Refusal.MISCONFIGURED, "directory id"),
    ([9002326, 9002327], Refusal.MISCONFIGURED, "Mobile and desktop"),
    ([53001, 53002, 53004], Refusal.SIGN_IN_NEEDED, "administrator"),
    ([50053], Refusal.SIGN_IN_NEEDED, "administrator"),
    ([90033, 90024, 50033, 90006, 70012], Refusal.TRY_LATER, "by itself"),
    ([700027, 700021, 700023], Refusal.MISCONFIGURED, "certificate"),
    ([700024], Refusal.MISCONFIGURED, "clock"),
    ([54005], Refusal.SIGN_IN_NEEDED, "Start the sign-in again"),
    ([50126, 50034], Refusal.SIGN_IN_NEEDED, "password"),
    ([50057, 7000112], Refusal.SIGN_IN_NEEDED, "enable"),
    ([650052, 500011], Refusal.SIGN_IN_NEEDED, "organisation"),
    ([500021], Refusal.SIGN_IN_NEEDED, "network"),
]


@pytest.mark.parametrize(
    ("code", "refusal", "words"), [(code, refusal, words) for codes, refusal, words in SIGN_IN_ROWS for code in codes]
)
def test_every_number_of_the_facts_is_explained(code: int, refusal: Refusal, words: str) -> None:
    explanation = explain_sign_in("an_error_nobody_knows", [code])
    assert explanation.known
    assert explanation.refusal is refusal
    assert words in explanation.remedy


# FACTS 5, rows 21-27, and the texts of 2.3-2.5, 3.1-3.3, as Exchange sends them.
EXCHANGE_ROWS: list[tuple[str, str, Refusal, str]] = [
    ("imap", "AUTHENTICATE failed.", Refusal.REFUSED_UPSTREAM, "IMAP or POP is enabled"),
    ("imap", '{"status":"400","schemes":"Bearer","scope":"https://mail"}', Refusal.REFUSED_UPSTREAM, "signed in"),
    ("pop3", "Authentication failure: unknown user name or bad password.", Refusal.REFUSED_UPSTREAM, "IMAP or POP"),
    ("pop3", "Logon failure: unknown user name or bad password.", Refusal.REFUSED_UPSTREAM, "IMAP or POP"),
    ("imap", "BAD User is authenticated but not connected.", Refusal.TRY_LATER, "Full Access to {mailbox}"),
    (
        "smtp",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
        "Visit https://aka.ms/smtp_auth_disabled for more information. (host.prod.outlook.com)",
        Refusal.REFUSED_UPSTREAM,
        "Set-CASMailbox -Identity {mailbox} -SmtpClientAuthenticationDisabled $false",
    ),
    ("smtp", "535 5.7.3 Authentication unsuccessful (AM0PR.eurprd.outlook.com)", Refusal.REFUSED_UPSTREAM, "sign_in"),
    ("smtp", "Authentication unsuccessful", Refusal.REFUSED_UPSTREAM, "sign_in"),
    ("smtp", "554 5.2.252 SendAsDenied; alice not allowed to send as bob", Refusal.REFUSED_UPSTREAM, "Send As"),
    (
        "smtp",
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        Refusal.REFUSED_UPSTREAM,
        "Send As",
    ),
    ("smtp", "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", Refusal.REFUSED_UPSTREAM, "Send As"),
    ("smtp", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Refusal.BUSY, "smtp_connections"),
    ("smtp", "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/x", Refusal.BUSY, "lower"),
    ("imap", "BAD Request is throttled. Suggested Backoff Time: 299000 milliseconds", Refusal.BUSY, "imap_connections"),
    ("imap", "BYE Connection closed. 14", Refusal.BUSY, "imap_connections"),
    (
        "smtp",
        "430 4.2.0 STOREDRV; mailbox logon failure; failure processing",
        Refusal.REFUSED_UPSTREAM,
        "service princ",
    ),
    (
        "smtp",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
        Refusal.MISCONFIGURED,
        "bug",
    ),
    ("imap", "NO Basic authentication is disabled.", Refusal.MISCONFIGURED, "bug"),
    (
        "smtp",
        "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.",
        Refusal.REFUSED_UPSTREAM,
        "allow authenticated SMTP",
    ),
    (
        "smtp",
        "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria "
        "to be authenticated successfully.",
        Refusal.REFUSED_UPSTREAM,
        "exempt {user}",
    ),
    ("smtp", "500 5.5.2 Line too long", Refusal.MISCONFIGURED, "upstreams"),
    ("smtp", "555-5.5.2 Syntax error, line too long", Refusal.MISCONFIGURED, "upstreams"),
    ("smtp", "530 5.7.57 Client not authenticated to send mail", Refusal.TRY_LATER, "bug"),
    ("smtp", "501 5.5.124 Invalid XOAUTH2 auth data", Refusal.REFUSED_UPSTREAM, "Sign in again"),
    ("smtp", "501 5.5.127 Token will expire soon error", Refusal.TRY_LATER, "fresh token"),
    ("smtp", "451 4.7.0 Temporary server error. Please try again later. PRX4", Refusal.TRY_LATER, "Nothing is wrong"),
    ("smtp", "450 4.3.111 Server is busy. MRH1", Refusal.TRY_LATER, "Nothing is wrong"),
    ("smtp", "421 4.3.2 Service not active", Refusal.TRY_LATER, "Nothing is wrong"),
    ("smtp", "554 5.2.0 STOREDRV; SubmissionQuotaExceededException", Refusal.TRY_LATER, "tomorrow"),
    ("smtp", "554 5.2.2 mailbox full", Refusal.REFUSED_UPSTREAM, "Delete mail"),
    ("pop3", "Protocol error. Connection is closed. 10", Refusal.REFUSED_UPSTREAM, "Use IMAP"),
    ("imap", "BYE Session invalidated - AccessTokenExpired", Refusal.TRY_LATER, "fresh token"),
    ("imap", "BAD Command received in Invalid state.", Refusal.TRY_LATER, "fresh token"),
    ("imap", "BYE Connection is closed. 13", Refusal.TRY_LATER, "connects again"),
]


@pytest.mark.parametrize(("protocol", "text", "refusal", "words"), EXCHANGE_ROWS)
@pytest.mark.parametrize("case", [str, str.upper], ids=["as sent", "upper case"])
def test_every_answer_of_the_facts_is_explained(
    protocol: str, text: str, refusal: Refusal, words: str, case: type[str]
) -> None:
    explanation = explain_exchange(protocol, case(text))
    assert explanation.known
    assert explanation.refusal is refusal
    assert words in explanation.remedy


def test_no_row_of_the_table_is_out_of_reach() -> None:
    """A row behind a wider one would never be said; a number in two rows would be said of one."""
    reached = {explain_exchange(protocol, text) for protocol, text, _, _ in EXCHANGE_ROWS}
    assert reached == set(EXCHANGE_EXPLANATIONS)
    for row in SIGN_IN_EXPLANATIONS:
        assert all(explain_sign_in("", [code]) is row for code in row.codes)
        assert all(explain_sign_in(error, []) is row for error in row.errors)
        assert row.codes or row.errors


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.cause)
def test_every_row_says_who_must_act_in_one_line_that_fits_a_reply(row: Explanation) -> None:
    told = row.for_(mailbox="sales@contoso.com", user="alice@contoso.com")
    for sentence in (told.cause, told.remedy):
        assert sentence.isascii()
        assert sentence.isprintable()
        assert not re.search(r"[{}\[\]]", sentence)
    assert len(told.cause) <= 130
    assert len(told.remedy) <= 200
    assert len(told.told("alice@contoso.com")) <= MAX_TOLD_CHARACTERS
    if row.who in ("user", "administrator", "operator"):
        assert "try again" not in told.remedy or row.refusal is Refusal.TRY_LATER
    if row.who == "nobody":
        assert row.refusal in (Refusal.TRY_LATER, Refusal.BUSY)
    if row.refusal is Refusal.MISCONFIGURED:
        assert (row.who, row.fault) == ("operator", Fault.MAILFERRY)
    if row.refusal is Refusal.SIGN_IN_NEEDED:
        assert row.who in ("user", "administrator")
        assert row.fault is not Fault.MAILFERRY


@pytest.mark.parametrize("row", [*TABLE, explain_sign_in("odd", [1])], ids=lambda row: row.cause)
def test_what_a_remedy_tells_to_type_is_a_command(row: Explanation) -> None:
    told = row.for_(login="alice@contoso.com", app="work")
    for words in re.findall(r"mailferry ((?:app|account|sign-in|administrator|doctor|check)\b[\w @.-]*)", told.remedy):
        plain = re.split(r"\. |\.$| (?:writes|prints|compares)\b", words)[0]
        parser().parse_args(plain.split())


# Which of several signs is heeded


def test_the_first_known_number_says_most() -> None:
    assert explain_sign_in("invalid_grant", [1, 50173, 50076]) is explain_sign_in("", [50173])


def test_the_suberror_says_more_than_the_error() -> None:
    assert explain_sign_in("invalid_grant", [1], "consent_required") is explain_sign_in("", [65001])


def test_an_error_without_a_known_number_is_explained_by_itself() -> None:
    assert explain_sign_in("invalid_grant", []).refusal is Refusal.SIGN_IN_NEEDED
    assert explain_sign_in("invalid_client", [123456]).refusal is Refusal.MISCONFIGURED


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error"])
def test_what_passes_by_itself_asks_for_no_sign_in_whatever_its_number(error: str) -> None:
    assert explain_sign_in(error, [50173]).refusal is Refusal.TRY_LATER


@pytest.mark.parametrize("code", [90033, 90024, 50033, 90006, 70012, 50196])
def test_a_temporary_number_keeps_the_sign_in_though_the_error_is_invalid_grant(code: int) -> None:
    assert explain_sign_in("invalid_grant", [code]).refusal is Refusal.TRY_LATER


def test_the_numbers_of_a_redirect_stand_in_its_description() -> None:
    description = "AADSTS65004: User declined to consent. Trace ID: 1 AADSTS50076, AADSTSx, AADSTS"
    assert aadsts_codes(description) == (65004, 50076)


# What is not known


def test_an_unknown_error_is_said_to_be_unknown_and_shown() -> None:
    explanation = explain_sign_in("new_error", [123456, 7], "odd")
    assert not explanation.known
    assert explanation.cause.endswith("does not know: new_error AADSTS123456 AADSTS7 odd")
    assert "https://login.microsoftonline.com/error?code=123456 " in explanation.remedy
    assert "mailferry doctor {login}" in explanation.remedy
    assert explanation.refusal is Refusal.TRY_LATER  # nothing is thrown away for an error that nobody understands


def test_an_unknown_answer_is_said_to_be_unknown_and_shown() -> None:
    explanation = explain_exchange("imap", "NO Mercury is in retrograde.")
    assert not explanation.known
    assert explanation.cause.endswith("does not know: NO Mercury is in retrograde.")
    assert explanation.fault is Fault.EXCHANGE


def test_an_answer_is_explained_in_its_own_protocol_only() -> None:
    assert not explain_exchange("pop3", "SmtpClientAuthentication is disabled").known


def test_nothing_said_is_said_to_be_nothing() -> None:
    assert "(nothing)" in explain_exchange("smtp", " \r\n").cause
    assert "(nothing)" in explain_sign_in("", []).cause


@given(st.text(max_size=400), st.lists(st.integers(min_value=1, max_value=10**9), max_size=50), st.text(max_size=50))
def test_whatever_comes_is_shown_in_one_bounded_line_of_printable_ascii(
    text: str, codes: list[int], suberror: str
) -> None:
    for explanation in (
        explain_sign_in(text, codes, suberror),
        explain_sign_in("", codes, "", text),
        explain_exchange("imap", text),
    ):
        assert explanation.text.isascii()
        assert explanation.text.isprintable()
        assert len(explanation.cause) <= MAX_RAW_CHARACTERS + 150


def test_what_an_unknown_error_says_of_itself_is_shown_and_its_numbers_once() -> None:
    explanation = explain_sign_in("new_error", [123456], "", "AADSTS123456: Mercury is in retrograde.")
    assert explanation.cause.endswith("does not know: new_error AADSTS123456: Mercury is in retrograde.")


@pytest.mark.parametrize(
    "secret", ["eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9eyJh", "A" * 37, "Zm9v/YmFy+" * 5], ids=["JWT", "long", "base64"]
)
def test_a_word_that_might_be_a_secret_is_not_shown(secret: str) -> None:
    for explanation in (explain_sign_in("odd", [1], "", f"Bearer {secret} is odd"), explain_exchange("imap", secret)):
        assert secret not in explanation.text
        assert "..." in explanation.cause


def test_a_guid_and_an_address_are_shown() -> None:
    text = "4f1c2d8e-0a4b-4f1c-9d8e-0a4b4f1c2d8e host1.eurprd01.prod.exchangelabs.com"
    assert text in explain_exchange("imap", text).cause


# What a mail program is told


def test_a_mail_program_is_told_both_where_they_fit() -> None:
    row = explain_sign_in("", [50105]).for_(user="a@b.test", login="a@b.test")
    assert row.told("a@b.test") == row.text


def test_a_mail_program_is_told_where_the_rest_stands_where_they_do_not() -> None:
    row = explain_exchange("imap", "AUTHENTICATE failed.").for_(mailbox="a@b.test", user="a@b.test")
    assert row.told("a@b.test") == f"{row.cause} What to do: mailferry account show a@b.test"


@given(st.text(max_size=300), st.text(max_size=200))
def test_whatever_is_told_fits(text: str, login: str) -> None:
    for row in (explain_exchange("imap", text), *TABLE):
        assert len(row.for_(mailbox=login, user=login, app=login, login=login).told(login)) <= MAX_TOLD_CHARACTERS


def test_a_login_is_refused_in_the_rows_words() -> None:
    row = explain_exchange("smtp", "430 4.2.0 STOREDRV; mailbox logon failure").for_(mailbox="a@b.test")
    refused = row.refuse("a@b.test", detail="430", again_in_s=7)
    assert (refused.refusal, refused.fault, refused.who) == (row.refusal, row.fault, "administrator")
    assert (refused.cause, refused.remedy, refused.text) == (row.cause, row.remedy, row.told("a@b.test"))
    assert (refused.detail, refused.again_in_s) == ("430", 7)
    assert row.refuse("a@b.test", refusal=Refusal.BUSY, text="words").refusal is Refusal.BUSY


# Names


def test_names_are_filled_in() -> None:
    told = explain_exchange("imap", "authenticated but not connected").for_(mailbox="sales@x.test", user="alice@x.test")
    assert told.remedy.startswith("Grant alice@x.test Full Access to sales@x.test;")
    assert "alice@x.test" in told.cause
    assert told.text == f"{told.cause} {told.remedy}"
    told = explain_sign_in("", [7000222]).for_(app="work")
    assert told.remedy.endswith("mailferry app change work --client-secret-stdin")
    told = explain_sign_in("", [50173]).for_(login="alice@x.test")
    assert told.remedy.endswith("mailferry sign-in alice@x.test")


def test_a_name_that_is_not_known_is_described() -> None:
    assert "Ask an administrator to open the app's admin consent address" in explain_sign_in("", [90094]).for_().remedy


def test_braces_in_a_name_or_in_an_unknown_answer_fill_nothing_twice() -> None:
    told = explain_exchange("imap", "authenticated but not connected").for_(mailbox="{user}", user="{mailbox}")
    assert "Grant {mailbox} Full Access to {user};" in told.remedy
    assert explain_exchange("imap", "{} {0} {user}").for_(user="a").cause.endswith("{} {0} {user}")
