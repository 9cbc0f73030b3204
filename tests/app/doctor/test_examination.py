"""All checks in order, bounded: `examination.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from proxy.accounts.keys import KeyUnusable
from proxy.accounts.store import StoreUnavailable
from proxy.app.answers import DeskError
from proxy.app.doctor.examination import Check, Looking, checks, examine, perform
from proxy.app.doctor.findings import Finding, Verdict, ok
from proxy.login import Fault
from tests.app.doctor.scenes import FakeDesk, only, scene_of
from tests.app.doctor.test_grant import GOOD, NO
from tests.app.doctor.test_mailbox import YES
from tests.app.home import ALICE, Home


def failing(error: BaseException) -> Callable[[], Iterator[Finding]]:
    def look() -> Iterator[Finding]:
        yield ok("x", "X", "first")
        raise error

    return look


def test_outer_things_stand_first(furnished: Home) -> None:
    named = [check.what for check in checks(scene_of(furnished, ALICE))]
    assert named[0] == "the configuration"
    assert named.index("names") < named.index("the clock") < named.index("the app work")
    assert named[-1] == f"{ALICE} at Microsoft"
    assert sum(name.startswith("the way to") for name in named) == 4


def test_a_broken_configuration_opens_no_office(furnished: Home) -> None:
    furnished.file.write_text(furnished.file.read_text() + "typo: 1\n")
    assert "the app work" in [check.what for check in checks(scene_of(furnished))]
    assert f"{ALICE} at Microsoft" not in [check.what for check in checks(scene_of(furnished))]
    about = {"pid": 1, "version": "1"}
    assert f"{ALICE} at Microsoft" in [check.what for check in checks(scene_of(furnished, about=about))]


def test_progress_is_told_before_what_was_found(furnished: Home) -> None:
    steps = list(examine(scene_of(furnished, ALICE, ask=FakeDesk({"grant": NO}).ask, environ={"NO_PROXY": "*"})))
    looks = [step for step in steps if isinstance(step, Looking)]
    assert [look.number for look in looks] == list(range(1, looks[0].of + 1))
    assert steps[0] == Looking("the configuration", 1, looks[0].of)
    assert isinstance(steps[1], Finding)


def test_without_a_sign_in_nobody_logs_in(furnished: Home) -> None:
    for answer in ({**NO, "state": "sign_in_needed"}, {**NO, "state": "signing_in"}):
        desk = FakeDesk({"grant": answer, "probe": YES})
        scene = scene_of(furnished, ALICE, ask=desk.ask)
        assert len(list(perform(checks(scene)[-1]))) == 1
        assert [verb for verb, _ in desk.asked] == ["grant"]
    desk = FakeDesk({"grant": {"ok": True, "holder": "", "claims": {**GOOD, "user": "b@c.d"}}, "probe": YES})
    list(perform(checks(scene_of(furnished, ALICE, ask=desk.ask))[-1]))
    assert [verb for verb, _ in desk.asked] == ["grant", "probe", "probe", "probe"]


def test_an_app_that_is_off_has_been_told(furnished: Home) -> None:
    furnished.run("app", "change", "work", "--disable")
    desk = FakeDesk()
    assert list(perform(checks(scene_of(furnished, ALICE, ask=desk.ask))[-1])) == []
    assert desk.asked == []


def test_a_check_that_does_not_end_is_left_behind() -> None:
    end = threading.Event()

    def look() -> Iterator[Finding]:
        yield ok("x", "X", "first")
        end.wait(20.0)

    first, second = perform(Check("slow things", look, 0.05))
    end.set()
    assert first.verdict is Verdict.OK
    assert (second.verdict, second.check) == (Verdict.FAIL, "time")
    assert "slow things" in second.title


@pytest.mark.parametrize(
    ("error", "check", "said"),
    [
        (StoreUnavailable("Others may write in it. Run: chmod 700 /x"), "store", "Run: chmod 700 /x"),
        (KeyUnusable("There is no key."), "store", "There is no key."),
        (DeskError("It is older."), "store", "It is older."),
        (RuntimeError("secret words"), "mistake", "RuntimeError"),
    ],
)
def test_a_check_that_cannot_go_on(error: BaseException, check: str, said: str) -> None:
    first, second = perform(Check("x", failing(error)))
    assert first.cause == "first"
    assert (second.check, second.verdict, second.fault) == (check, Verdict.FAIL, Fault.MAILFERRY)
    assert said in f"{second.cause} {second.remedy}"
    assert "secret words" not in f"{second.cause} {second.remedy}"
    assert second.remedy


def test_no_thread_keeps_the_process_alive() -> None:
    end = threading.Event()

    def look() -> Iterator[Finding]:
        end.wait(20.0)
        yield ok("x", "X", "late")

    only(perform(Check("hanging", look, 0.01)))
    left = [thread for thread in threading.enumerate() if thread.name == "doctor: hanging"]
    assert left
    assert all(thread.daemon for thread in left)
    end.set()
