"""The sign-in and its token, judged: `grant.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from proxy.app.answers import DeskError
from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.grant import SIGN_IN, UNDER_WAY, check_grant, judge, refused
from proxy.config import Account
from proxy.config.settings import Cloud
from proxy.login import Fault
from tests.app.doctor.scenes import FakeDesk, only, scene_of, words
from tests.app.home import ALICE, APPLICATION_ID, DESK, Home

NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {
    "kind": "jwt",
    "characters": 2_000,
    "audience": "https://outlook.office.com",
    "scopes": ["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"],
    "roles": [],
    "user": ALICE,
    "tenant": "t",
    "application_id": APPLICATION_ID,
    "expires_at_s": NOW + 3_600,
}
NO: dict[str, Any] = {
    "ok": False,
    "step": "token",
    "state": "authentication_error",
    "refusal": "misconfigured",
    "cause": "Why.",
    "remedy": "What.",
    "fault": "mailferry",
    "who": "operator",
    "detail": "",
    "trace": "",
}


@pytest.fixture
def alice(furnished: Home) -> Account:
    account = furnished.config().account(ALICE)
    assert account is not None
    return account


@pytest.fixture
def desk_account(furnished: Home) -> Account:
    account = furnished.config().account(DESK)
    assert account is not None
    return account


def judged(account: Account, claims: Mapping[str, Any]) -> Any:
    return only(judge(account, {**GOOD, **claims}, lambda: NOW))


def test_a_good_token(alice: Account) -> None:
    finding = judged(alice, {})
    assert finding.verdict is Verdict.OK
    assert f"for Exchange of {ALICE}" in finding.cause
    assert "Good for 60 minutes" in finding.details[0]


@pytest.mark.parametrize(
    "audience",
    ["https://outlook.office.com/", "https://outlook.office365.com", "00000002-0000-0ff1-ce00-000000000000", ""],
)
def test_audiences_that_exchange_takes(alice: Account, audience: str) -> None:
    assert judged(alice, {"audience": audience}).verdict is Verdict.OK


def test_an_audience_that_it_does_not_take(alice: Account) -> None:
    finding = judged(alice, {"audience": "https://graph.microsoft.com"})
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, Fault.MAILFERRY)
    assert "made for https://graph.microsoft.com" in finding.cause
    assert f"mailferry sign-in {ALICE}" in finding.remedy
    us = replace(alice, app=replace(alice.app, cloud=Cloud.GCC_HIGH))
    assert "outlook.office365.us" in judged(us, {}).cause


def test_rights_that_are_lacking(alice: Account) -> None:
    finding = judged(alice, {"scopes": ["IMAP.AccessAsUser.All"]})
    assert "lacks POP.AccessAsUser.All and SMTP.Send" in finding.cause
    assert "reading by POP3 and sending" in finding.cause
    assert "API permissions" in finding.remedy
    assert "It has: IMAP.AccessAsUser.All." in finding.details


def test_rights_that_this_account_does_not_need(alice: Account) -> None:
    assert judged(replace(alice, protocols=("imap",)), {"scopes": ["IMAP.AccessAsUser.All"]}).verdict is Verdict.OK


def test_an_apps_own_rights(desk_account: Account) -> None:
    claims = {"scopes": [], "user": "", "application_id": desk_account.app.application_id}
    finding = judged(desk_account, {**claims, "roles": ["IMAP.AccessAsApp"]})
    assert "SMTP.SendAsApp" in finding.cause
    assert finding.who == "administrator"
    all_roles = ["IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp"]
    assert judged(desk_account, {**claims, "roles": all_roles}).verdict is Verdict.OK


def test_somebody_elses(alice: Account) -> None:
    finding = judged(alice, {"user": "bob@contoso.com"})
    assert (finding.fault, finding.who) == (Fault.CLIENT, "user")
    assert "belongs to bob@contoso.com" in finding.cause
    assert "sign_in: bob@contoso.com" in finding.remedy
    assert judged(alice, {"user": ALICE.upper()}).verdict is Verdict.OK


def test_another_apps(alice: Account) -> None:
    finding = judged(alice, {"application_id": "99999999-9999-4999-8999-999999999999"})
    assert "another app" in finding.cause


def test_one_that_is_over_already(alice: Account) -> None:
    finding = judged(alice, {"expires_at_s": NOW - 1})
    assert "timedatectl" in finding.remedy


def test_one_that_is_too_long_for_pop3(alice: Account) -> None:
    finding = judged(alice, {"characters": 5_000})
    assert (finding.verdict, finding.fault) == (Verdict.WARN, Fault.EXCHANGE)
    assert judged(replace(alice, protocols=("imap",)), {"characters": 5_000}).verdict is Verdict.OK


def test_several_faults_are_all_told(alice: Account) -> None:
    found = list(judge(alice, {**GOOD, "audience": "x", "user": "b@c.d", "scopes": []}, lambda: NOW))
    assert [each.verdict for each in found] == [Verdict.FAIL] * 3


def test_one_that_cannot_be_read(alice: Account) -> None:
    finding = only(judge(alice, {"kind": "opaque", "characters": 900}))
    assert finding.verdict is Verdict.OK
    assert "personal accounts" in finding.cause


@pytest.mark.parametrize(
    ("state", "verdict", "sign_in", "remedy"),
    [
        ("sign_in_needed", Verdict.FAIL, True, "What."),
        ("authentication_error", Verdict.FAIL, False, "What."),
        ("connect_error", Verdict.FAIL, False, "What."),
        ("signing_in", Verdict.WARN, False, UNDER_WAY),
        ("disabled", Verdict.FAIL, False, "Switch it on: mailferry app change work --enable"),
    ],
)
def test_no_token(alice: Account, state: str, verdict: Verdict, sign_in: bool, remedy: str) -> None:
    finding = refused(alice, {**NO, "state": state, "detail": "AADSTS1", "trace": "For an administrator: x."})
    assert (finding.check, finding.verdict, finding.sign_in) == (SIGN_IN, verdict, sign_in)
    assert finding.remedy == remedy
    if state != "disabled":
        assert finding.details == ("Microsoft's own words: AADSTS1", "For an administrator: x.")


def test_what_the_desk_says(furnished: Home, alice: Account) -> None:
    desk = FakeDesk({"grant": {"ok": True, "holder": ALICE, "claims": {**GOOD, "expires_at_s": None}}})
    first, second = check_grant(scene_of(furnished, ask=desk.ask), alice)
    assert f"a fresh token for {ALICE}" in first.cause
    assert second.verdict is Verdict.OK
    assert desk.asked == [("grant", {"login": ALICE})]


def test_a_token_that_cannot_be_renewed_now(furnished: Home, alice: Account) -> None:
    told = {"unasked": "It is down.", "remedy": "", "fault": "microsoft_sign_in"}
    desk = FakeDesk({"grant": {"ok": True, "holder": "", "claims": {**GOOD, "expires_at_s": None}, **told}})
    first = next(check_grant(scene_of(furnished, ask=desk.ask), alice))
    assert (first.verdict, first.who) == (Verdict.WARN, "nobody")
    assert "still good" in first.cause


def test_a_desk_that_cannot_say(furnished: Home, alice: Account) -> None:
    desk = FakeDesk({"grant": DeskError("It is older.")})
    finding = only(check_grant(scene_of(furnished, ask=desk.ask), alice))
    assert finding.verdict is Verdict.WARN
    assert "It is older." in words(finding)
