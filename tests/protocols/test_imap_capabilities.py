"""The lists that IMAP's front names before and after a login."""

from __future__ import annotations

import pytest

from proxy.protocols.imap_capabilities import EXCHANGE, after_login, before_login

LOGINS = ["AUTH=PLAIN", "AUTH=LOGIN"]
NEVER = {"AUTH=XOAUTH2", "AUTH=OAUTHBEARER", "COMPRESS=DEFLATE", "IMAP4rev2", "ENABLE", "LITERAL-"}  # CLIENTS 2.2


def test_exchange_is_known_before_the_first_login() -> None:
    assert before_login((), offers_tls=False, needs_tls=False) == [*EXCHANGE, *LOGINS]


@pytest.mark.parametrize(
    ("offers_tls", "needs_tls", "tail"),
    [(True, False, ["STARTTLS", *LOGINS]), (True, True, ["STARTTLS", "LOGINDISABLED"]), (False, False, LOGINS)],
)
def test_the_ways_in_are_our_own(offers_tls: bool, needs_tls: bool, tail: list[str]) -> None:
    learnt = ["STARTTLS", "LOGINDISABLED", "AUTH=XOAUTH2", "IDLE"]
    named = before_login(learnt, offers_tls=offers_tls, needs_tls=needs_tls)
    assert named == ["IMAP4", "IMAP4rev1", "SASL-IR", "IDLE", *tail]


def test_no_more_is_promised_than_upstream_had_in_any_spelling() -> None:
    learnt = ["imap4REV1", "idle", "Move", *NEVER]
    assert before_login(learnt, offers_tls=False, needs_tls=False) == [
        *("IMAP4", "IMAP4rev1", "SASL-IR", "IDLE", "MOVE"),
        *LOGINS,
    ]


def test_after_login_the_ways_in_and_what_confuses_old_programs_are_left_out() -> None:
    upstream = ["IMAP4", "IMAP4rev1", "auth=PLAIN", "AUTH=XOAUTH2", "ENABLE", "imap4rev2", "StartTLS", "LOGINDISABLED"]
    assert after_login([*upstream, "X-NEW", "IDLE"]) == ["IMAP4", "IMAP4rev1", "X-NEW", "IDLE"]
    assert after_login(before_login((), offers_tls=True, needs_tls=True)) == list(EXCHANGE)
