"""The logins at Exchange, as findings: `mailbox.py`."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.app.answers import DeskError
from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.mailbox import check_mailbox, judge
from proxy.config import Account
from proxy.login import Fault
from tests.app.doctor.scenes import FakeDesk, scene_of, words
from tests.app.doctor.test_grant import NO
from tests.app.home import ALICE, Home

YES: dict[str, Any] = {"ok": True, "said": "AUTHENTICATE completed.", "took_ms": 12}
REFUSED = {
    **NO,
    "step": "token sent",
    "refusal": "refused_upstream",
    "fault": "exchange",
    "who": "administrator",
    "detail": "NO AUTHENTICATE failed.",
}
BUSY = {**REFUSED, "refusal": "busy"}


@pytest.fixture
def alice(furnished: Home) -> Account:
    account = furnished.config().account(ALICE)
    assert account is not None
    return account


def found(home: Home, alice: Account, *answers: Any) -> list[tuple[str, str]]:
    scene = scene_of(home, ask=FakeDesk({"probe": list(answers)}).ask)
    return [(each.check, each.verdict.value) for each in check_mailbox(scene, alice)]


def test_all_three_and_no_throttling(furnished: Home, alice: Account) -> None:
    assert found(furnished, alice, YES, YES, YES) == [
        *(("imap", "ok"), ("pop3", "ok"), ("smtp", "ok")),
        ("throttling", "ok"),
    ]


def test_one_that_fails_does_not_hide_the_others(furnished: Home, alice: Account) -> None:
    assert found(furnished, alice, REFUSED, DeskError("no"), YES) == [
        *(("imap", "fail"), ("pop3", "warn"), ("smtp", "ok")),
        ("throttling", "ok"),
    ]


def test_throttling_is_a_warning_of_its_own(furnished: Home, alice: Account) -> None:
    assert found(furnished, alice, BUSY, YES, YES) == [("throttling", "warn"), ("pop3", "ok"), ("smtp", "ok")]


def test_without_a_token_once_is_enough(furnished: Home, alice: Account) -> None:
    assert found(furnished, alice, NO) == [("sign_in", "fail")]


def test_a_host_out_of_reach_is_not_tried(furnished: Home, alice: Account) -> None:
    desk = FakeDesk({"probe": YES})
    scene = scene_of(furnished, ask=desk.ask)
    scene.out_of_reach |= {"outlook.office365.com:993", "outlook.office365.com:995"}
    assert [each.check for each in check_mailbox(scene, alice)] == ["smtp", "throttling"]
    scene.out_of_reach.add("smtp.office365.com:587")
    assert list(check_mailbox(scene, alice)) == []
    assert [arguments["protocol"] for _, arguments in desk.asked] == ["smtp"]


def test_what_is_said(alice: Account) -> None:
    good = judge(alice, "smtp", YES)
    assert f"takes {ALICE} as the sender; nothing was sent. (12 ms)" in good.cause
    assert "AUTHENTICATE completed." in words(good)
    bad = judge(alice, "imap", REFUSED)
    assert (bad.verdict, bad.fault, bad.who) == (Verdict.FAIL, Fault.EXCHANGE, "administrator")
    assert bad.details == ("It got as far as: token sent.", "The server's own words: NO AUTHENTICATE failed.")
    assert judge(alice, "imap", {**REFUSED, "detail": ""}).details == ("It got as far as: token sent.",)
