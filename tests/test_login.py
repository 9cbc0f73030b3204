"""The nouns of a login: what carries a secret does not print it."""

from __future__ import annotations

import traceback

import pytest

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal, Trace

SECRET = "s3cret"


def test_credentials_show_the_login_alone() -> None:
    credentials = Credentials(b"alice", SECRET.encode(), verbatim=(b"alice", SECRET.encode()))
    assert SECRET not in repr(credentials)
    assert "alice" in repr(credentials)
    assert credentials.password == SECRET.encode()


def test_a_bearer_shows_the_user_alone() -> None:
    assert repr(Bearer("alice@contoso.com", SECRET)) == "Bearer(user='alice@contoso.com')"


def test_a_refusal_says_why_and_keeps_the_detail_to_the_log() -> None:
    refused = LoginRefused(Refusal.TRY_LATER, "Try later.", fault=Fault.NETWORK, detail="the provider's own words")
    assert (refused.refusal, refused.text, refused.fault) == (Refusal.TRY_LATER, "Try later.", Fault.NETWORK)
    assert "the provider's own words" not in "".join(traceback.format_exception(refused))


def test_an_invitation_is_said_first_and_printed_nowhere() -> None:
    refused = LoginRefused(Refusal.SIGN_IN_NEEDED, "Nobody has signed in.", fault=Fault.CLIENT)
    assert refused.told == "Nobody has signed in."
    refused.invitation = f"Enter {SECRET}."
    assert refused.told == f"Enter {SECRET}. Nobody has signed in."
    printed = f"{refused!r} {refused} {refused.text} {refused.whole} {traceback.format_exception(refused)}"
    assert SECRET not in printed


def test_who_has_more_room_is_told_all() -> None:
    trace = Trace("AADSTS50105", "c-1", "2027-01-15 08:00:00Z")
    refused = LoginRefused(
        Refusal.SIGN_IN_NEEDED, "Cut", fault=Fault.CLIENT, cause="Not assigned.", remedy="Ask.", trace=trace
    )
    assert refused.whole == (
        "Not assigned. Ask. For an administrator: AADSTS50105, correlation id c-1, time 2027-01-15 08:00:00Z."
    )
    assert LoginRefused(Refusal.TRY_LATER, "Later.", fault=Fault.NETWORK).whole == "Later."


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (Trace(), ""),
        (Trace("network_error"), ""),  # nothing that Microsoft's log would know
        (Trace("AADSTS700016"), "AADSTS700016"),
        (Trace("invalid_grant", "c-1"), "invalid_grant, correlation id c-1"),
    ],
)
def test_a_trace_that_leads_nowhere_is_false(trace: Trace, text: str) -> None:
    assert trace.sentence == (f"For an administrator: {text}." if text else "")


def test_the_words_of_the_log_and_of_the_states() -> None:
    assert [fault.value for fault in Fault] == ["client", "mailferry", "microsoft_sign_in", "exchange", "network"]
    assert Refusal.BAD_CREDENTIALS.value == "bad_credentials", "the fail2ban filter looks for it"
