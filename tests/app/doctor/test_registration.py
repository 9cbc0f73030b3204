"""The app as the sign-in service sees it: `registration.py`, at the stand-in."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.app.doctor.findings import Finding, Verdict, plain
from proxy.app.doctor.registration import check_app
from proxy.app.doctor.scene import sign_in_place
from proxy.config import App
from proxy.config.settings import Certificate, Secret
from proxy.demo.doors import DEVICE_CODE, TOKEN
from proxy.demo.identity import EVERYWHERE, Failure, IdentityProvider
from proxy.login import Fault
from tests.app.doctor.authorities import DAY, make_authority
from tests.app.doctor.scenes import only, scene_of, words
from tests.app.home import APPLICATION_ID, ROBOT_ID, SECRET, Home

OTHER_ID = "99999999-9999-4999-8999-999999999999"


def look(home: Home, app: App) -> Finding:
    return only(check_app(scene_of(home), app))


@pytest.fixture
def work(furnished: Home, identity: IdentityProvider) -> Iterator[App]:
    yield furnished.config().apps["work"]
    identity.heal()


@pytest.fixture
def robot(furnished: Home) -> App:
    return furnished.config().apps["robot"]


def test_a_good_one_of_each_kind(furnished: Home, identity: IdentityProvider, work: App, robot: App) -> None:
    assert "public client" in look(furnished, work).cause
    assert "signs in by itself" in look(furnished, robot).cause
    identity.add_app(OTHER_ID, public=False, secret=SECRET)
    confidential = replace(work, application_id=OTHER_ID, client_secret=Secret(SECRET))
    assert "client secret is taken" in look(furnished, confidential).cause


def test_nothing_that_was_given_is_shown(furnished: Home, work: App, robot: App) -> None:
    said = json.dumps([plain(look(furnished, app)) for app in (work, robot)])
    for secret in (SECRET, "access_token", "device_code", "eyJ"):
        assert secret not in said


def test_a_wrong_directory_is_told_apart_from_a_wrong_id(
    furnished: Home, identity: IdentityProvider, work: App
) -> None:
    nowhere = f"{identity.base}/66666666-6666-4666-8666-666666666666"
    finding = look(furnished, replace(work, authority=nowhere))
    assert "knows no directory '66666666" in finding.cause
    assert "into authority" in finding.remedy
    by_kind = look(furnished, replace(work, authority=nowhere, own_authority=False))
    assert "into account_types" in by_kind.remedy
    finding = look(furnished, replace(work, application_id=OTHER_ID))
    assert "The directory exists" in finding.cause
    assert OTHER_ID in finding.cause
    assert "adminconsent" in finding.remedy
    assert all(each.fault is Fault.MAILFERRY for each in (finding, by_kind))


@pytest.mark.parametrize(
    ("account_types", "tenant", "said"),
    [("consumers", "common", "personal accounts only"), ("organizations", "consumers", "kind of account")],
)
def test_account_types_that_do_not_fit(
    furnished: Home, identity: IdentityProvider, work: App, account_types: str, tenant: str, said: str
) -> None:
    identity.add_app(OTHER_ID, account_types=account_types)
    app = replace(work, application_id=OTHER_ID, authority=f"{identity.base}/{tenant}")
    finding = look(furnished, app)
    assert said in finding.cause
    assert "account_types" in finding.remedy


def test_public_client_flows_off(furnished: Home, work: App) -> None:
    finding = look(furnished, replace(work, application_id=ROBOT_ID))
    assert "public client flows are off" in finding.cause
    assert "Allow public client flows" in finding.remedy


def test_a_secret_that_is_wrong_over_or_too_much(
    furnished: Home, identity: IdentityProvider, work: App, robot: App
) -> None:
    wrong = replace(robot, client_secret=Secret("wrong"))
    assert "secret is wrong" in look(furnished, wrong).cause
    too_much = replace(work, client_secret=Secret("needless"))
    assert "Remove client_secret" in look(furnished, too_much).remedy
    identity.fail(Failure.SECRET_EXPIRED)
    assert "has expired" in look(furnished, robot).cause


def test_a_secret_whose_end_is_near(furnished: Home, robot: App) -> None:
    soon = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=3)
    finding = look(furnished, replace(robot, client_secret_expires=soon))
    assert finding.verdict is Verdict.WARN
    assert "ends in" in finding.cause
    assert "new one" in finding.remedy


def test_a_redirect_address_of_another_app(furnished: Home, work: App) -> None:
    finding = look(furnished, replace(work, redirect_uri="http://localhost/other"))
    assert "redirect address is not registered" in finding.cause


def test_what_an_authorize_page_says_of_people_is_not_the_apps(
    furnished: Home, identity: IdentityProvider, work: App
) -> None:
    identity.sign_in_as("nobody@contoso.com")
    assert look(furnished, work).verdict is Verdict.OK


def test_an_app_that_is_off(furnished: Home, work: App) -> None:
    finding = look(furnished, replace(work, enabled=False))
    assert (finding.verdict, finding.remedy) == (Verdict.FAIL, "Switch it on: mailferry app change work --enable")
    unused = replace(work, name="unused", enabled=False)
    assert look(furnished, unused).verdict is Verdict.WARN


@pytest.mark.parametrize("endpoint", [*EVERYWHERE])
def test_a_service_in_trouble_says_nothing_of_the_app(
    furnished: Home, identity: IdentityProvider, work: App, endpoint: str
) -> None:
    identity.fail(Failure.UNAVAILABLE, at=(endpoint,))
    finding = look(furnished, work)
    assert finding.verdict is (Verdict.OK if endpoint == "authorize" else Verdict.WARN)
    if endpoint != "authorize":
        assert (finding.fault, finding.who) == (Fault.MICROSOFT_SIGN_IN, "nobody")


@pytest.mark.parametrize(
    ("failure", "verdict", "fault", "said"),
    [
        (Failure.THROTTLED, Verdict.WARN, Fault.MICROSOFT_SIGN_IN, "HTTP 429"),
        (Failure.HTML_PAGE, Verdict.FAIL, Fault.NETWORK, "log-in page"),
        (Failure.DISCONNECTS, Verdict.FAIL, Fault.NETWORK, "broke off"),
        (Failure.TEMPORARILY_UNAVAILABLE, Verdict.WARN, Fault.MICROSOFT_SIGN_IN, "temporary"),
    ],
)
def test_other_troubles_of_the_service(
    furnished: Home,
    identity: IdentityProvider,
    work: App,
    failure: Failure,
    verdict: Verdict,
    fault: Fault,
    said: str,
) -> None:
    at = (DEVICE_CODE, TOKEN) if failure is Failure.TEMPORARILY_UNAVAILABLE else EVERYWHERE
    identity.fail(failure, at=at)
    finding = look(furnished, work)
    assert (finding.verdict, finding.fault) == (verdict, fault)
    assert said in words(finding)


def test_a_host_that_is_out_of_reach_is_told_elsewhere(furnished: Home, work: App) -> None:
    scene = scene_of(furnished)
    scene.out_of_reach.add(sign_in_place(work).name)
    assert list(check_app(scene, work)) == []


@pytest.mark.parametrize(
    ("ends", "verdict", "said"),
    [(9 * DAY, Verdict.WARN, "ends on"), (-DAY, Verdict.FAIL, "ended on"), (90 * DAY, Verdict.OK, "certificate")],
)
def test_an_apps_certificate(
    furnished: Home, tmp_path: Path, work: App, ends: datetime.timedelta, verdict: Verdict, said: str
) -> None:
    files = make_authority(tmp_path, "App", "", begins=-9 * DAY, ends=ends)
    finding = look(furnished, replace(work, certificate=Certificate(files.file, files.key)))
    assert finding.verdict is verdict
    assert said in finding.cause


def test_an_apps_certificate_that_is_none(furnished: Home, tmp_path: Path, work: App) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    finding = look(furnished, replace(work, certificate=Certificate(tmp_path / "none.pem", tmp_path / "none.pem")))
    assert "cannot be read as a PEM certificate" in finding.cause


def test_an_id_is_asked_for_as_it_stands(furnished: Home, work: App, identity: IdentityProvider) -> None:
    before = len(identity.requests)
    assert look(furnished, work).verdict is Verdict.OK
    assert work.application_id == APPLICATION_ID
    asked = [endpoint for endpoint, _ in identity.requests[before:]]
    assert asked == ["discovery", "authorize", "devicecode", "token"]
