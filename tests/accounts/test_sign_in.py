"""Sign-ins as objects with a life: each once, none mixed up, the right person only, and every one comes to an end."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

from proxy.accounts.endings import Refused, SignedIn, pasted
from proxy.accounts.keys import FileKey
from proxy.accounts.microsoft import Microsoft
from proxy.accounts.outcomes import (
    AppMisconfigured,
    CodeFlow,
    DeviceFlow,
    Granted,
    Outcome,
    SignInAgain,
    SignInError,
    StillPending,
    TryLater,
    sort_error,
)
from proxy.accounts.sign_in import (
    CODE_LIFE_S,
    MAX_OPEN_CODE_SIGN_INS,
    MAX_POLL_INTERVAL_S,
    CodeSignIn,
    DeviceSignIn,
    SignIns,
)
from proxy.accounts.states import AccountStates
from proxy.accounts.store import SqliteStore, lock_state_folder
from proxy.accounts.tokens import Tokens
from proxy.config.settings import Account, App
from proxy.demo import browser
from proxy.demo.identity import Failure as IdpFailure
from proxy.demo.identity import IdentityProvider
from proxy.login import Fault, LoginRefused, Refusal
from tests.accounts.fakes import (
    ALICE,
    APP,
    DAEMON,
    NOW_S,
    FakeMicrosoft,
    Inbox,
    MemoryStore,
    WallClock,
    account,
    done,
    granted,
    later,
    result,
    running,
)

BACK = "http://localhost:51234"
BOB = account("bob@contoso.com")
LIFE_S, INTERVAL_S = 900, 5  # FACTS 3.3


def device_flow(number: int = 1, *, life_s: float = LIFE_S) -> DeviceFlow:
    return DeviceFlow(
        user_code=f"USERCODE{number}",
        address="https://microsoft.com/devicelogin",
        message=f"Open the page and enter USERCODE{number}.",
        expires_at_s=NOW_S + life_s,
        interval_s=INTERVAL_S,
        secrets={"device_code": f"device-code-{number}"},
    )


class Desk:
    """Sign-ins with everything around them."""

    def __init__(self) -> None:
        self.clock = WallClock()
        self.store = MemoryStore()
        self.microsoft = FakeMicrosoft()
        self.states = AccountStates(self.clock.seconds)
        self.tokens = Tokens(self.store, self.microsoft, self.clock, self.states, now=self.clock.seconds)
        self.sign_ins = SignIns(self.microsoft, self.tokens, self.clock, now=self.clock.seconds)
        done(self.tokens.start([ALICE, BOB]))

    def begin_code(self, who: Account = ALICE) -> CodeSignIn:
        begun = done(self.sign_ins.begin_code(who, BACK))
        assert isinstance(begun, CodeSignIn)
        return begun

    def finish_code(self, begun: CodeSignIn, outcome: Outcome) -> SignedIn | Refused:
        finishing = running(self.sign_ins.finish_code(begun.id, {"state": begun.id, "code": "the-code"}))
        self.microsoft.answer(outcome)
        return result(finishing)

    def begin_device(self, who: Account = ALICE, *, life_s: float = LIFE_S) -> DeviceSignIn:
        self.microsoft.device_flows.append(device_flow(life_s=life_s))
        begun = done(self.sign_ins.begin_device(who))
        assert isinstance(begun, DeviceSignIn)
        return begun

    def poll(self, after_s: float, answer: Outcome | StillPending) -> None:
        """The next poll comes exactly then, and is answered."""
        polls = self.microsoft.count("poll_device")
        self.clock.advance(after_s - 0.5)
        assert self.microsoft.count("poll_device") == polls
        self.clock.advance(0.5)
        assert self.microsoft.count("poll_device") == polls + 1
        self.microsoft.polls[-1].callback(answer)

    def token(self, who: Account = ALICE) -> str:
        return done(self.tokens.access(who, user=who.mailbox)).token

    def refusal(self, who: Account = ALICE) -> str:
        with pytest.raises(LoginRefused) as caught:
            self.token(who)
        return caught.value.text

    def state(self, who: Account = ALICE) -> str | None:
        return self.states.report(who)["state"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- by address


def test_a_browser_sign_in_gives_the_account_its_tokens(desk: Desk) -> None:
    begun = desk.begin_code()
    assert desk.microsoft.asked == [("begin_code", f"{BACK} alice@contoso.com")]
    assert begun.id in begun.address
    assert desk.state() == "signing_in"
    assert "sign-in" in desk.refusal()
    assert desk.finish_code(begun, granted(1)) == SignedIn("alice@contoso.com", "alice@contoso.com")
    assert desk.microsoft.asked[-1] == ("redeem_code", f"{begun.id} the-code")
    assert desk.token() == "access-1"
    assert desk.state() == "connecting"
    assert desk.clock.getDelayedCalls() == []


def test_an_answer_is_good_once(desk: Desk) -> None:
    begun = desk.begin_code()
    desk.finish_code(begun, granted(1))
    second = done(desk.sign_ins.finish_code(begun.id, {"state": begun.id, "code": "the-code"}))
    assert isinstance(second, Refused)
    assert "finished already" in second.text
    assert desk.microsoft.count("redeem_code") == 1


def test_two_answers_at_once_redeem_one_code(desk: Desk) -> None:
    begun = desk.begin_code()
    first, second = (running(desk.sign_ins.finish_code(begun.id, {"state": begun.id, "code": "c"})) for _ in range(2))
    desk.microsoft.answer(granted(1))
    assert isinstance(result(first), SignedIn)
    assert isinstance(result(second), Refused)


def test_an_answer_works_until_ten_minutes_are_over(desk: Desk) -> None:
    quick, slow = desk.begin_code(), desk.begin_code()
    desk.clock.advance(CODE_LIFE_S - 1)
    assert isinstance(desk.finish_code(quick, granted(1)), SignedIn)
    desk.clock.advance(1)
    late = done(desk.sign_ins.finish_code(slow.id, {"state": slow.id, "code": "c"}))
    assert isinstance(late, Refused)
    assert "ten minutes" in late.text
    assert late.unfinished


def test_an_abandoned_sign_in_is_forgotten(desk: Desk) -> None:
    desk.begin_code()
    desk.clock.advance(CODE_LIFE_S)
    assert desk.state() == "sign_in_needed"
    assert "mailferry sign-in alice@contoso.com" in desk.refusal()


def test_an_unknown_id_is_told_so(desk: Desk) -> None:
    unknown = done(desk.sign_ins.finish_code("made up", {"state": "made up", "code": "c"}))
    assert isinstance(unknown, Refused)
    assert unknown.remedy


def test_several_at_once_do_not_mix(desk: Desk) -> None:
    alice, bob = desk.begin_code(), desk.begin_code(BOB)
    assert isinstance(desk.finish_code(bob, granted(2, username=BOB.name)), SignedIn)
    assert desk.state() == "signing_in"
    assert isinstance(desk.finish_code(alice, granted(1)), SignedIn)
    assert (desk.token(), desk.token(BOB)) == ("access-1", "access-2")


def test_while_another_attempt_is_open_the_account_is_still_signing_in(desk: Desk) -> None:
    first, _second = desk.begin_code(), desk.begin_code()
    assert isinstance(desk.finish_code(first, later()), Refused)
    assert desk.state() == "signing_in"
    desk.clock.advance(CODE_LIFE_S)
    assert desk.state() == "sign_in_needed"


def test_a_page_reloaded_for_ever_holds_a_bounded_number(desk: Desk) -> None:
    first, second = desk.begin_code(), desk.begin_code()
    for _ in range(MAX_OPEN_CODE_SIGN_INS - 1):
        desk.begin_code()
    oldest = done(desk.sign_ins.finish_code(first.id, {"state": first.id, "code": "c"}))
    assert isinstance(oldest, Refused)
    assert isinstance(desk.finish_code(second, granted(1)), SignedIn)


@pytest.mark.parametrize(
    "outcome",
    [
        later(),
        SignInAgain(SignInError("answer_mismatch", text="The answer does not belong to this sign-in.")),
        SignInAgain(SignInError("access_denied", (65004,))),
        AppMisconfigured(SignInError("invalid_client", (7000218,))),
    ],
)
def test_a_sign_in_that_fails_speaks_to_a_person_and_changes_nothing(desk: Desk, outcome: Outcome) -> None:
    desk.finish_code(desk.begin_code(), granted(1))
    refused = desk.finish_code(desk.begin_code(), outcome)
    assert isinstance(refused, Refused)
    assert refused.text.endswith(".")
    assert refused.remedy
    assert "{" not in refused.text + refused.remedy
    assert desk.token() == "access-1"


def test_a_sign_in_that_cannot_begin_speaks_to_a_person(desk: Desk) -> None:
    desk.microsoft.code_flows.append(AppMisconfigured(SignInError("bad_authority", text="There is no directory.")))
    desk.microsoft.device_flows.append(AppMisconfigured(SignInError("unauthorized_client", (700016,))))
    by_code, by_device = done(desk.sign_ins.begin_code(ALICE, BACK)), done(desk.sign_ins.begin_device(ALICE))
    assert isinstance(by_code, Refused)
    assert (by_code.text, by_code.fault) == ("There is no directory.", Fault.MAILFERRY)
    assert isinstance(by_device, Refused)
    assert f"client_id={APP.application_id}" in by_device.remedy  # the consent address, ready to open
    assert desk.state() == "sign_in_needed"


@pytest.mark.parametrize(
    ("app", "word"), [(replace(APP, enabled=False), "--enable"), (DAEMON, "Nobody needs to sign in")]
)
def test_an_app_without_sign_ins_is_not_asked(desk: Desk, app: App, word: str) -> None:
    unfit = account(app=app)
    for refused in (done(desk.sign_ins.begin_code(unfit, BACK)), done(desk.sign_ins.begin_device(unfit))):
        assert isinstance(refused, Refused)
        assert word in refused.remedy
    assert desk.microsoft.asked == []


@pytest.mark.parametrize(
    "outcome",
    [
        later(),
        TryLater(SignInError("service_unavailable", text="The sign-in service answered with HTTP 503.")),
        sort_error({"error": "temporarily_unavailable", "error_codes": [90033]}),
        sort_error({"error": "invalid_grant", "error_codes": [50196]}),
        sort_error({"error": "odd"}),
    ],
)
def test_a_person_who_waits_is_not_told_that_it_is_tried_again_by_itself(desk: Desk, outcome: TryLater) -> None:
    begun = desk.begin_code()
    desk.microsoft.code_flows.append(outcome)
    for refused in (done(desk.sign_ins.begin_code(ALICE, BACK)), desk.finish_code(begun, outcome)):
        assert isinstance(refused, Refused)
        assert "tries again" not in f"{refused.text} {refused.remedy}"
        assert "Start the sign-in again" in refused.remedy


def test_an_error_at_the_redirect_is_explained_by_the_number_in_its_text(desk: Desk) -> None:
    error = {"error": "access_denied", "error_description": "AADSTS90094: Admin consent is required. Trace ID: 1"}
    refused = desk.finish_code(desk.begin_code(), sort_error(error))
    assert isinstance(refused, Refused)
    assert "only an administrator" in refused.text
    assert f"{APP.authority}/v2.0/adminconsent?client_id={APP.application_id}" in refused.remedy


def test_what_a_refused_login_says_follows_the_sign_ins_that_are_open(desk: Desk) -> None:
    desk.begin_code()
    assert "in the browser" in desk.refusal()
    device = desk.begin_device()
    assert device.address in desk.refusal()
    device.cancel()
    assert "in the browser" in desk.refusal()
    desk.clock.advance(CODE_LIFE_S)
    assert "mailferry sign-in alice@contoso.com" in desk.refusal()


TRACE = {"correlation_id": "c-1", "timestamp": "2027-01-15 08:00:00Z"}


@pytest.mark.parametrize(
    ("answer", "cause", "remedy", "who", "code"),
    [
        (
            {"error": "access_denied", "error_description": "AADSTS65004: User declined to consent."},
            "consent",
            "accept",
            "user",
            "AADSTS65004",
        ),
        (
            {"error": "access_denied", "error_codes": [90095]},
            "only an administrator",
            "Ask an administrator",
            "administrator",
            "AADSTS90095",
        ),
        (
            {"error": "access_denied", "error_codes": [53003]},
            "rules block",
            "administrator",
            "administrator",
            "AADSTS53003",
        ),
        ({"error": "invalid_grant", "error_codes": [50105]}, "not assigned", "assign", "administrator", "AADSTS50105"),
        ({"error": "invalid_client", "error_codes": [7000218]}, "secret", "public client", "operator", "AADSTS7000218"),
    ],
    ids=["consent denied", "admin consent", "tenant blocked", "not assigned", "no public client"],
)
def test_each_no_ends_in_a_line_that_says_what_to_do(
    desk: Desk, answer: dict[str, object], cause: str, remedy: str, who: str, code: str
) -> None:
    refused = desk.finish_code(desk.begin_code(), sort_error({**answer, **TRACE}))
    device = desk.begin_device()
    desk.poll(INTERVAL_S, sort_error({**answer, **TRACE}))
    assert result(device.result()) == refused
    assert isinstance(refused, Refused)
    assert cause in refused.text
    assert remedy in refused.remedy
    assert (refused.who, refused.unfinished) == (who, False)
    assert refused.told == (
        f"{refused.text} {refused.remedy} For an administrator: {code}, correlation id c-1, time 2027-01-15 08:00:00Z."
    )
    assert "\n" not in refused.told


def test_an_error_at_the_redirect_is_explained_without_microsoft(desk: Desk) -> None:
    """It says all itself; and the service may be what cannot be reached."""
    begun = desk.begin_code()
    query = {"error": "access_denied", "error_description": "AADSTS50105: no", "state": begun.id}
    refused = done(desk.sign_ins.finish_code(begun.id, query))
    assert isinstance(refused, Refused)
    assert refused.trace.code == "AADSTS50105"
    assert desk.microsoft.count("redeem_code") == 0
    assert desk.state() == "sign_in_needed", "and this sign-in is over"


@pytest.mark.parametrize("query", [{}, {"state": "s"}, {"client_id": "x", "state": "s"}])
def test_what_holds_no_answer_signs_nobody_in(desk: Desk, query: dict[str, str]) -> None:
    refused = done(desk.sign_ins.finish_code(desk.begin_code().id, query))
    assert isinstance(refused, Refused)
    assert refused.unfinished
    assert APP.redirect_uri in refused.remedy
    assert desk.microsoft.count("redeem_code") == 0
    assert desk.state() == "sign_in_needed"


def test_an_unknown_error_is_shown_as_it_came_and_where_to_look(desk: Desk) -> None:
    answer = {"error": "invalid_grant_odd", "error_description": "AADSTS424242: The moon.", **TRACE}
    refused = desk.finish_code(desk.begin_code(), sort_error(answer))
    assert isinstance(refused, Refused)
    assert "does not know" in refused.text
    assert "AADSTS424242: The moon." in refused.text
    assert "https://login.microsoftonline.com/error?code=424242" in refused.remedy
    assert "correlation id c-1" in refused.told


# --- the right person


def test_the_names_case_does_not_matter(desk: Desk) -> None:
    assert isinstance(desk.finish_code(desk.begin_code(), granted(1, username="ALICE@Contoso.COM")), SignedIn)


def test_the_delegate_signs_in_for_a_shared_mailbox(desk: Desk) -> None:
    sales = account("sales", mailbox="sales@contoso.com", sign_in=ALICE.name)
    assert isinstance(desk.finish_code(desk.begin_code(sales), granted(1)), SignedIn)
    assert desk.token(sales) == "access-1"


def test_neither_the_login_nor_the_mailbox_may_sign_in_for_another(desk: Desk) -> None:
    """Accounts of one `sign_in` share its grant: whoever else signed in would open the others' mailboxes too."""
    sales = account("desk@contoso.com", mailbox="sales@contoso.com", sign_in=ALICE.name)
    for username in ("desk@contoso.com", "sales@contoso.com"):
        assert isinstance(desk.finish_code(desk.begin_code(sales), granted(1, username=username)), Refused)
    assert desk.state() == "sign_in_needed"


@pytest.mark.parametrize("before", [False, True])
def test_another_person_is_told_so_and_nothing_is_adopted(desk: Desk, before: bool) -> None:
    if before:
        desk.finish_code(desk.begin_code(), granted(1))
    refused = desk.finish_code(desk.begin_code(), granted(2, username=BOB.name))
    assert isinstance(refused, Refused)
    assert "as bob@contoso.com" in refused.text
    assert "for alice@contoso.com" in refused.text
    assert "sign_in: bob@contoso.com" in refused.remedy
    assert not desk.store.holds("grant/work/alice@contoso.com", "cache-2")
    if before:
        assert desk.token() == "access-1"
    else:
        assert desk.state() == "sign_in_needed"


def test_the_same_person_under_a_new_name_is_known(desk: Desk) -> None:
    desk.finish_code(desk.begin_code(), granted(1))
    renamed = replace(granted(2, username="alice.married@contoso.com"), home_account_id=granted(1).home_account_id)
    assert desk.finish_code(desk.begin_code(), renamed) == SignedIn("alice@contoso.com", "alice.married@contoso.com")
    assert desk.token() == "access-2"


def test_two_persons_without_an_id_are_not_the_same(desk: Desk) -> None:
    nameless = replace(granted(1), home_account_id="")
    desk.finish_code(desk.begin_code(), nameless)
    assert isinstance(desk.finish_code(desk.begin_code(), replace(nameless, username=BOB.name)), Refused)


def test_a_store_that_cannot_be_read_does_not_stop_the_right_person(desk: Desk) -> None:
    fresh = SignIns(
        desk.microsoft,
        Tokens(desk.store, desk.microsoft, desk.clock, desk.states, now=desk.clock.seconds),
        desk.clock,
        now=desk.clock.seconds,
    )
    desk.store.failing = True
    begun = done(fresh.begin_code(ALICE, BACK))
    assert isinstance(begun, CodeSignIn)
    finishing = running(fresh.finish_code(begun.id, {"state": begun.id, "code": "c"}))
    desk.microsoft.answer(granted(1))
    assert isinstance(result(finishing), SignedIn)


# --- by device code


def test_a_device_code_is_polled_until_it_is_granted(desk: Desk) -> None:
    begun = desk.begin_device()
    assert (begun.code, begun.address) == ("USERCODE1", "https://microsoft.com/devicelogin")
    assert begun.expires_at_s == NOW_S + LIFE_S
    assert desk.state() == "signing_in"
    assert begun.address in desk.refusal()
    waiting = [begun.result(), begun.result()]
    desk.poll(INTERVAL_S, StillPending(INTERVAL_S))
    desk.poll(INTERVAL_S, StillPending(INTERVAL_S + 5))
    desk.poll(INTERVAL_S + 5, granted(1))
    expected = SignedIn("alice@contoso.com", "alice@contoso.com")
    assert [result(each) for each in (*waiting, begun.result())] == [expected] * 3
    assert desk.token() == "access-1"
    assert desk.state() == "connecting"
    assert desk.clock.getDelayedCalls() == []


def test_polls_back_off_in_an_outage_and_go_on(desk: Desk) -> None:
    begun = desk.begin_device()
    for wait_s in (5, 10, 20, 40, MAX_POLL_INTERVAL_S, MAX_POLL_INTERVAL_S):
        desk.poll(wait_s, later())
    desk.poll(MAX_POLL_INTERVAL_S, StillPending(INTERVAL_S))
    desk.poll(INTERVAL_S, granted(1))  # the outage is over
    assert isinstance(result(begun.result()), SignedIn)


def test_a_device_code_ends_with_its_time(desk: Desk) -> None:
    begun = desk.begin_device(life_s=12)
    desk.poll(5, StillPending(5))
    desk.poll(5, StillPending(5))
    desk.poll(2, StillPending(5))
    ended = result(begun.result())
    assert isinstance(ended, Refused)
    assert "expired" in ended.text
    assert ended.unfinished
    assert desk.state() == "sign_in_needed"
    assert desk.clock.getDelayedCalls() == []


def test_a_device_code_that_microsoft_calls_expired_was_not_refused(desk: Desk) -> None:
    begun = desk.begin_device()
    desk.poll(INTERVAL_S, sort_error({"error": "expired_token", "error_codes": [70019]}))
    ended = result(begun.result())
    assert isinstance(ended, Refused)
    assert ended.unfinished


def test_a_device_code_that_is_over_when_it_comes_blocks_no_later_one(desk: Desk) -> None:
    over = desk.begin_device(life_s=0)
    assert isinstance(result(over.result()), Refused)
    assert desk.begin_device() is not over


def test_a_denied_device_code_ends_at_once(desk: Desk) -> None:
    begun = desk.begin_device()
    desk.poll(INTERVAL_S, SignInAgain(SignInError("authorization_declined", (65004,))))
    assert isinstance(result(begun.result()), Refused)
    assert desk.state() == "sign_in_needed"


@pytest.mark.parametrize("polling", [False, True])
def test_a_cancelled_device_code_ends_at_once_and_a_late_grant_is_dropped(desk: Desk, polling: bool) -> None:
    begun = desk.begin_device()
    if polling:
        desk.clock.advance(INTERVAL_S)
    begun.cancel()
    ended = result(begun.result())
    assert isinstance(ended, Refused)
    assert "given up" in ended.text
    assert ended.unfinished
    if polling:
        desk.microsoft.polls[0].callback(granted(1))
    assert desk.state() == "sign_in_needed"
    assert desk.clock.getDelayedCalls() == []
    begun.cancel()  # once more does no harm
    assert isinstance(desk.begin_device(), DeviceSignIn)


def test_who_stops_waiting_ends_nothing(desk: Desk) -> None:
    begun = desk.begin_device()
    leaving, staying = begun.result(), begun.result()
    leaving.cancel()
    with pytest.raises(CancelledError):
        result(leaving)
    desk.poll(INTERVAL_S, granted(1))
    assert isinstance(result(staying), SignedIn)


def test_one_device_code_at_a_time_for_each_identity(desk: Desk) -> None:
    sales = account("sales", mailbox="sales@contoso.com", sign_in=ALICE.name)
    begun = desk.begin_device()
    assert done(desk.sign_ins.begin_device(ALICE)) is begun
    assert done(desk.sign_ins.begin_device(sales)) is begun
    assert desk.begin_device(BOB) is not begun
    assert desk.microsoft.count("begin_device") == 2


def test_a_code_that_nobody_asked_for_is_no_sign_in_yet(desk: Desk) -> None:
    desk.microsoft.device_flows.append(device_flow())
    offered = done(desk.sign_ins.begin_device(ALICE, announced=False))
    assert isinstance(offered, DeviceSignIn)
    assert desk.sign_ins.device(ALICE) is offered
    assert (desk.state(), offered.announced) == ("sign_in_needed", False)
    assert done(desk.sign_ins.begin_device(ALICE)) is offered
    assert done(desk.sign_ins.begin_device(ALICE, announced=False)) is offered, "who asked is still there"
    assert (desk.state(), offered.announced) == ("signing_in", True)
    desk.poll(INTERVAL_S, granted(1))
    assert desk.sign_ins.device(ALICE) is None


def test_two_that_begin_together_get_one_device_code(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[Deferred[DeviceFlow]] = [Deferred(), Deferred()]
    answers = iter(slow)
    monkeypatch.setattr(desk.microsoft, "begin_device", lambda app: next(answers))
    beginnings = [running(desk.sign_ins.begin_device(ALICE)) for _ in slow]
    for number, flow in enumerate(slow):
        flow.callback(device_flow(number))
    first, second = (result(beginning) for beginning in beginnings)
    assert first is second
    desk.clock.advance(INTERVAL_S)
    assert desk.microsoft.asked == [("poll_device", "USERCODE0")]


def test_another_persons_device_code_is_refused(desk: Desk) -> None:
    begun = desk.begin_device()
    desk.poll(INTERVAL_S, granted(1, username=BOB.name))
    ended = result(begun.result())
    assert isinstance(ended, Refused)
    assert "bob@contoso.com" in ended.text
    assert desk.state() == "sign_in_needed"


def test_a_mistake_of_ours_ends_the_sign_in_in_plain_words(desk: Desk) -> None:
    begun = desk.begin_device()
    desk.clock.advance(INTERVAL_S)
    desk.microsoft.polls[0].errback(ZeroDivisionError())
    ended = result(begun.result())
    assert isinstance(ended, Refused)
    assert ended.fault is Fault.MAILFERRY


def test_closing_ends_them_all(desk: Desk) -> None:
    begun, code = desk.begin_device(), desk.begin_code(BOB)
    desk.sign_ins.close()
    assert isinstance(result(begun.result()), Refused)
    assert isinstance(done(desk.sign_ins.finish_code(code.id, {})), Refused)
    assert desk.clock.getDelayedCalls() == []


# --- secrets


def test_no_code_or_token_is_printed_or_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    code, device = desk.begin_code(), desk.begin_device(BOB)
    flow = CodeFlow("state-secret", "https://x/?state=state-secret", {"nonce": "nonce-secret"})
    refusal = desk.refusal(BOB)
    ends = [desk.finish_code(code, granted(1)), desk.finish_code(desk.begin_code(), granted(3, username="eve@x.org"))]
    desk.poll(INTERVAL_S, granted(2, username="eve@x.org"))
    ends.append(result(device.result()))
    records = " ".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records)
    printed = f"{code!r} {device!r} {flow!r} {device_flow()!r} {ends!r} {refusal} {records}"
    assert isinstance(granted(1), Granted)
    assert "another person signed in" in records
    for secret in (code.id, "state-secret", "nonce-secret", "the-code", "access-", "cache-", "USERCODE", "device-code"):
        assert secret not in printed


# --- all together: the real msal, the stand-in sign-in service, a store on the disk


def test_a_sign_in_on_the_real_msal_outlives_a_restart_an_outage_and_a_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox, pool, clock = Inbox(), ThreadPool(0, 2), WallClock()
    clock.rightNow = time.time()
    reactor = cast("IReactorFromThreads", inbox)
    folder, key = lock_state_folder(tmp_path / "state"), tmp_path / "key"

    async def open_office() -> tuple[SqliteStore, Tokens, SignIns]:
        store = SqliteStore(folder, FileKey(key, created=True), reactor)
        await store.open()
        microsoft = Microsoft(pool, reactor)
        tokens = Tokens(store, microsoft, clock, AccountStates(clock.seconds), now=clock.seconds)
        await tokens.start([ALICE])
        return store, tokens, SignIns(microsoft, tokens, clock)

    def token(*, fresh: bool = False) -> str:
        return inbox.wait(running(tokens.access(who, user=ALICE.name, fresh=fresh))).token

    pool.start()
    with IdentityProvider(tmp_path, single_use_refresh_tokens=True) as idp:
        idp.add_person(ALICE.name)
        idp.add_person(BOB.name)
        idp.add_app(APP.application_id)
        who = replace(ALICE, app=replace(APP, authority=idp.authority, own_authority=True, ca_file=idp.ca_file))
        store, tokens, sign_ins = inbox.wait(running(open_office()))

        def by_browser(person: str) -> SignedIn | Refused:
            idp.sign_in_as(person)
            begun = inbox.wait(running(sign_ins.begin_code(who, BACK)))
            assert isinstance(begun, CodeSignIn)
            final = browser.sign_in(begun.address, idp.ca_file).address
            return inbox.wait(running(sign_ins.finish_code(begun.id, pasted(final))))

        assert isinstance(by_browser(BOB.name), Refused)
        assert by_browser(ALICE.name) == SignedIn(ALICE.name, ALICE.name)
        seen = [token()]

        inbox.wait(running(tokens.close()))
        inbox.wait(store.close())
        store, tokens, sign_ins = inbox.wait(running(open_office()))
        assert token() == seen[0]

        clock.advance(3000)  # ten minutes are left
        logins = [running(tokens.access(who, user=ALICE.name)) for _ in range(50)]
        renewed = {inbox.wait(login).token for login in logins}
        assert len(renewed) == 1
        assert renewed != {seen[0]}
        assert idp.requests.count(("token", "refresh_token")) == 1
        seen += renewed

        clock.advance(400)  # this one was issued by the real clock, for an hour less those 3000 s
        idp.fail(IdpFailure.UNAVAILABLE)
        assert token() == seen[1]
        idp.heal()
        clock.advance(60)
        seen.append(token())  # the refresh token, good for one use, was kept
        assert idp.user_of(seen[2]) == ALICE.name

        idp.revoke(ALICE.name)
        with pytest.raises(LoginRefused) as caught:
            token(fresh=True)
        assert caught.value.refusal is Refusal.SIGN_IN_NEEDED

        device = inbox.wait(running(sign_ins.begin_device(who)))
        assert isinstance(device, DeviceSignIn)
        idp.approve_device(device.code, ALICE.name)
        clock.advance(5)
        assert inbox.wait(device.result()) == SignedIn(ALICE.name, ALICE.name)
        seen.append(token())
        assert idp.user_of(seen[3]) == ALICE.name

        inbox.wait(running(tokens.close()))
        inbox.wait(store.close())
    pool.stop()
    folder.release()
    logged = " ".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records)
    on_disk = b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir())
    for secret in (*seen, device.code):
        assert secret not in logged
        assert secret.encode() not in on_disk
