"""How sign-ins end: each no says what happened, whose fault it is and what to do, and pasted lines are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.accounts.endings import (
    DEVICE_EXPIRED,
    GIVEN_UP,
    NOT_OPEN,
    OUR_MISTAKE,
    TOOK_TOO_LONG,
    Refused,
    another_person,
    no_answer,
    pasted,
    refused_by_microsoft,
    unfit,
)
from proxy.accounts.outcomes import AdminMustAct, AppMisconfigured, SignInAgain, TryLater, sort_error
from proxy.config.settings import App
from proxy.login import Fault
from tests.accounts.fakes import ALICE, APP, DAEMON, account, later

TRACE = {"correlation_id": "c-1", "timestamp": "2027-01-15 08:00:00Z"}


@pytest.mark.parametrize(
    "ended",
    [
        GIVEN_UP,
        DEVICE_EXPIRED,
        TOOK_TOO_LONG,
        NOT_OPEN,
        OUR_MISTAKE,
        no_answer(ALICE),
        another_person(ALICE, "bob@contoso.com"),
        refused_by_microsoft(ALICE, later()),
    ],
    ids=lambda ended: ended.text[:24],
)
def test_each_is_one_line_that_says_what_to_do(ended: Refused) -> None:
    assert ended.text.endswith(".")
    assert ended.remedy.endswith(".")
    assert ended.told == f"{ended.text} {ended.remedy}", "there is nothing to find in Microsoft's log"
    assert not set("{}\n") & set(ended.told)


def test_where_nobody_said_yes_or_no_a_sign_in_is_still_needed() -> None:
    unfinished = [GIVEN_UP, DEVICE_EXPIRED, TOOK_TOO_LONG, no_answer(ALICE)]
    assert all(ended.unfinished for ended in unfinished)
    finished = [NOT_OPEN, OUR_MISTAKE, another_person(ALICE, "bob@contoso.com"), refused_by_microsoft(ALICE, later())]
    assert not any(ended.unfinished for ended in finished)


@pytest.mark.parametrize("answer", [{"error": "expired_token"}, {"error": "invalid_grant", "error_codes": [70019]}])
def test_a_code_that_microsoft_calls_expired_was_not_refused(answer: dict[str, object]) -> None:
    refused = sort_error(answer)
    assert refused_by_microsoft(ALICE, refused).unfinished


@pytest.mark.parametrize(
    ("app", "word", "who"),
    [
        (replace(APP, enabled=False), "app change work --enable", "operator"),
        (DAEMON, "Nobody needs to sign in", "nobody"),
    ],
)
def test_where_nobody_can_sign_in_it_is_said_why(app: App, word: str, who: str) -> None:
    ended = unfit(account(app=app))
    assert ended is not None
    assert word in ended.remedy
    assert ended.who == who
    assert unfit(ALICE) is None


@pytest.mark.parametrize(
    ("kind", "code", "fault", "who"),
    [
        (SignInAgain, 65004, Fault.MICROSOFT_SIGN_IN, "user"),
        (AdminMustAct, 50105, Fault.MICROSOFT_SIGN_IN, "administrator"),
        (AppMisconfigured, 7000218, Fault.MAILFERRY, "operator"),
        (TryLater, 50196, Fault.MICROSOFT_SIGN_IN, "nobody"),
    ],
)
def test_microsofts_no_names_fault_who_must_act_and_how_to_find_it(
    kind: type, code: int, fault: Fault, who: str
) -> None:
    outcome = sort_error({"error": "x", "error_codes": [code], **TRACE})
    assert isinstance(outcome, kind)
    ended = refused_by_microsoft(ALICE, outcome)
    assert (ended.fault, ended.who) == (fault, who)
    trace = f"For an administrator: AADSTS{code}, correlation id c-1, time 2027-01-15 08:00:00Z."
    assert ended.told == f"{ended.text} {ended.remedy} {trace}"


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost/?code=a.b&state=s%2F1",
        "  <http://localhost:51234/?state=s%2F1&code=a.b>\n",
        '"http://localhost/?code=a.b&state=s%2F1#_=_"',
        "?code=a.b&state=s%2F1",
        "code=a.b&state=s%2F1",
    ],
)
def test_what_a_person_pastes_is_read(text: str) -> None:
    assert pasted(text) == {"code": "a.b", "state": "s/1"}


def test_the_text_of_microsofts_error_page_is_read() -> None:
    text = "Sorry, but we're having trouble. AADSTS50011: The redirect URI ... does not match"
    assert pasted(text) == {"error": "", "error_description": text}
    with_answer = "http://localhost/?error=access_denied&error_description=AADSTS65004%3A+no&state=s"
    assert pasted(with_answer)["error"] == "access_denied"


@pytest.mark.parametrize("text", ["", "  ", "?", "http://localhost/", "what?", "http://[", "\x00"])
def test_what_holds_no_answer_is_empty(text: str) -> None:
    assert pasted(text) == {}
