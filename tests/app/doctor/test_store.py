"""The stored sign-ins, and a disk that takes none."""

from __future__ import annotations

from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.store import check_store
from tests.app.doctor.scenes import FakeDesk, only, scene_of
from tests.app.home import Home


def test_a_store_that_is_well(home: Home) -> None:
    desk = FakeDesk({"store": {"records": 3, "trouble": None, "trouble_since": None}})
    finding = only(check_store(scene_of(home, ask=desk.ask)))
    assert finding.verdict is Verdict.OK
    assert finding.cause == "3 stored, and the disk takes writes."


def test_a_disk_that_is_full(home: Home) -> None:
    told = {"records": 3, "trouble": "No space left on device.", "trouble_since": "2026-11-30T20:00:00+00:00"}
    finding = only(check_store(scene_of(home, ask=FakeDesk({"store": told}).ask)))
    assert finding.verdict is Verdict.FAIL
    assert "since 2026-11-30T20:00:00+00:00: No space left on device." in finding.cause
    assert "do not stop mailferry" in finding.remedy
