"""The nouns of a login: what carries a secret does not print it."""

from __future__ import annotations

import traceback

from proxy.login import Bearer, Credentials, Fault, LoginRefused, Refusal

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


def test_the_words_of_the_log_and_of_the_states() -> None:
    assert [fault.value for fault in Fault] == ["client", "mailferry", "microsoft_sign_in", "exchange", "network"]
    assert Refusal.BAD_CREDENTIALS.value == "bad_credentials", "the fail2ban filter looks for it"
