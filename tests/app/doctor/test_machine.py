"""This machine: `machine.py`."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from unittest import mock

import pytest

from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.machine import check_clock, check_daemon, check_descriptors, check_variables
from proxy.login import Fault
from tests.app.doctor.scenes import only, scene_of, words
from tests.app.home import Home
from tests.servers.child import free_port


def test_no_daemon_one_and_one_that_cannot_say(home: Home) -> None:
    assert only(check_daemon(scene_of(home))).verdict is Verdict.WARN
    finding = only(check_daemon(scene_of(home, about={"pid": 4711, "version": "1.2"})))
    assert (finding.verdict, "process 4711, version 1.2" in finding.cause) == (Verdict.OK, True)
    finding = only(check_daemon(scene_of(home, about={"trouble": "The socket is not yours."})))
    assert (finding.verdict, "not yours" in finding.cause) == (Verdict.WARN, True)


@pytest.mark.parametrize(
    ("off_s", "verdict", "said"),
    [
        (0, Verdict.OK, "agrees"),
        (100, Verdict.WARN, "seconds ahead"),
        (-200, Verdict.WARN, "3 minutes behind"),
        (7_260, Verdict.FAIL, "2 hours ahead"),
        (-86_400 * 400, Verdict.FAIL, "400 days behind"),
    ],
)
def test_the_clock(furnished: Home, off_s: float, verdict: Verdict, said: str) -> None:
    finding = only(check_clock(scene_of(furnished), lambda: time.time() + off_s))
    assert finding.verdict is verdict
    assert said in finding.cause
    assert finding.fault is (None if verdict is Verdict.OK else Fault.MAILFERRY)


def test_no_clock_to_compare_with_says_nothing(home: Home) -> None:
    home.run(
        *("app", "add", "work", "--application-id", "11111111-1111-4111-8111-111111111111"),
        *("--authority", f"https://localhost:{free_port()}/tenant"),
    )
    assert list(check_clock(scene_of(home))) == []


def test_variables_that_are_in_nobodys_way(furnished: Home) -> None:
    assert only(check_variables(scene_of(furnished))).verdict is Verdict.OK
    assert only(check_variables(scene_of(furnished, environ={"HTTPS_PROXY": "http://x:1", "NO_PROXY": "localhost"})))


def test_a_proxy_that_does_not_answer(furnished: Home) -> None:
    port = free_port()
    finding = only(check_variables(scene_of(furnished, environ={"https_proxy": f"http://u:pass@127.0.0.1:{port}"})))
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, Fault.NETWORK)
    assert f"127.0.0.1:{port}" in finding.cause
    assert "Unset https_proxy" in finding.remedy
    assert "pass@" not in words(finding)


def test_a_proxy_that_makes_no_sense(furnished: Home) -> None:
    finding = only(check_variables(scene_of(furnished, environ={"HTTPS_PROXY": "socks5://127.0.0.1:1"})))
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, Fault.MAILFERRY)
    assert "socks5" in finding.cause


def test_a_trust_variable_that_names_nothing(furnished: Home, tmp_path: Path) -> None:
    scene = scene_of(furnished, environ={"SSL_CERT_FILE": str(tmp_path / "gone.pem")})
    finding = next(each for each in check_variables(scene) if each.verdict is Verdict.FAIL)
    assert "gone.pem" in finding.cause
    assert "Unset SSL_CERT_FILE" in finding.remedy


def test_descriptors(furnished: Home) -> None:
    finding = only(check_descriptors(scene_of(furnished)))
    assert finding.verdict is Verdict.OK
    about = {"pid": 1, "version": "1", "descriptors": {"limit": 20, "used": 19}}
    finding = only(check_descriptors(scene_of(furnished, about=about)))
    assert finding.verdict is Verdict.WARN
    assert "enough for 10 sessions" in finding.cause
    assert "LimitNOFILE" in finding.remedy
    with mock.patch("resource.getrlimit", return_value=(1, resource.RLIM_INFINITY)):
        assert only(check_descriptors(scene_of(furnished))).verdict is Verdict.OK
