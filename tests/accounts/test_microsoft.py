"""The real msal against the stand-in sign-in service, over real TLS: each way to a token, each trouble's outcome."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.threadpool import ThreadPool

from proxy.accounts import microsoft as module
from proxy.accounts.microsoft import POOL_THREADS, Microsoft
from proxy.accounts.outcomes import (
    AdminMustAct,
    AppMisconfigured,
    CodeFlow,
    DeviceFlow,
    Granted,
    NotGranted,
    Outcome,
    SignInAgain,
    StillPending,
    TryLater,
)
from proxy.config.settings import App, Certificate, Cloud, Flow, Secret
from proxy.demo import browser
from proxy.demo.doors import DEVICE_CODE, DISCOVERY, TOKEN
from proxy.demo.identity import Failure, IdentityProvider
from tests.accounts.fakes import Inbox

PUBLIC = "11111111-1111-4111-8111-111111111111"
WEB = "22222222-2222-4222-8222-222222222222"
DAEMON = "33333333-3333-4333-8333-333333333333"
CERTIFIED = "44444444-4444-4444-8444-444444444444"
SECRET = "the~Secret~Value~of~forty~characters~ok1"
ALICE = "alice@contoso.com"
BACK = "http://localhost:51234"


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def microsoft(inbox: Inbox) -> Iterator[Microsoft]:
    pool = ThreadPool(minthreads=0, maxthreads=POOL_THREADS)
    pool.start()
    yield Microsoft(pool, cast("IReactorFromThreads", inbox))
    pool.stop()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    files = Certificate(tmp_path / "app.pem", tmp_path / "app.key")
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailferry test app")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(key, hashes.SHA256())
    files.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(open_pem(key))
    return files


def open_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    pkcs8 = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())


@pytest.fixture
def idp(tmp_path: Path, certificate: Certificate) -> Iterator[IdentityProvider]:
    with IdentityProvider(tmp_path, device_interval_s=0, single_use_refresh_tokens=True) as provider:
        provider.add_person(ALICE)
        provider.add_app(PUBLIC)
        provider.add_app(WEB, public=False, secret=SECRET)
        provider.add_app(DAEMON, public=False, secret=SECRET, app_only=True, may_open=("sales@contoso.com",))
        provider.add_app(
            CERTIFIED, public=False, certificate=certificate.file, app_only=True, may_open=("sales@contoso.com",)
        )
        provider.sign_in_as(ALICE)
        yield provider


@pytest.fixture
def app(idp: IdentityProvider) -> App:
    return App(
        name="work",
        application_id=PUBLIC,
        account_types="organizations",
        authority=idp.authority,
        own_authority=True,
        client_secret=None,
        certificate=None,
        flow=Flow.DELEGATED,
        cloud=Cloud.GLOBAL,
        redirect_uri="http://localhost",
        enabled=True,
        ca_file=idp.ca_file,
    )


Ask = Callable[[App], Outcome]


@pytest.fixture
def sign_in(microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider) -> Ask:
    """Through the browser, as far as it goes."""

    def sign_in(app: App) -> Outcome:
        flow = inbox.wait(microsoft.begin_code(app, BACK, ALICE))
        if not isinstance(flow, CodeFlow):
            return flow
        return inbox.wait(microsoft.redeem_code(app, flow, browser.sign_in(flow.address, idp.ca_file).fields))

    return sign_in


@pytest.fixture
def grant(sign_in: Ask, app: App) -> Granted:
    outcome = sign_in(app)
    assert isinstance(outcome, Granted)
    return outcome


def token_requests(idp: IdentityProvider) -> list[str]:
    return [grant_type for endpoint, grant_type in idp.requests if endpoint == TOKEN]


# --- a person's grant


def test_a_browser_sign_in_gives_a_token_for_exchange_and_says_who_signed_in(
    grant: Granted, idp: IdentityProvider
) -> None:
    assert idp.user_of(grant.access_token) == ALICE
    assert grant.username == ALICE
    assert grant.home_account_id.endswith(".7d2f0c1e-3b64-4f5a-9c8e-51a0d3e6b742")
    assert grant.expires_at_s == pytest.approx(time.time() + 3600, abs=60)


def test_the_code_is_guarded_by_pkce(microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App) -> None:
    flow = inbox.wait(microsoft.begin_code(app, BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    fields = browser.sign_in(flow.address, idp.ca_file).fields
    thief = replace(flow, secrets={**flow.secrets, "code_verifier": "x" * 43})
    outcome = inbox.wait(microsoft.redeem_code(app, thief, fields))
    assert isinstance(outcome, SignInAgain)
    assert outcome.error.codes == (501481,)


def test_each_refresh_rotates_the_refresh_token_and_the_cache_carries_it(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted
) -> None:
    latest = grant
    for _ in range(3):
        outcome = inbox.wait(microsoft.refresh(app, latest.cache))
        assert isinstance(outcome, Granted)
        assert outcome.access_token != latest.access_token
        assert (outcome.username, outcome.home_account_id) == (grant.username, grant.home_account_id)
        latest = outcome
    assert idp.user_of(latest.access_token) == ALICE
    used = inbox.wait(microsoft.refresh(app, grant.cache))  # the stand-in's refresh tokens are good for one use
    assert isinstance(used, SignInAgain)
    assert used.error.code == "invalid_grant"


def test_a_failure_is_not_remembered_once_it_is_over(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted
) -> None:
    for failure in (Failure.UNAVAILABLE, Failure.THROTTLED, Failure.CONSENT_REQUIRED, Failure.MFA_NEEDED):
        idp.fail(failure, times=1)
        assert not isinstance(inbox.wait(microsoft.refresh(app, grant.cache)), Granted)
    assert isinstance(inbox.wait(microsoft.refresh(app, grant.cache)), Granted)


def test_the_discovery_document_is_asked_for_once_until_a_person_begins_anew(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted, sign_in: Ask
) -> None:
    def discoveries() -> int:
        return sum(endpoint == DISCOVERY for endpoint, _ in idp.requests)

    outcome = inbox.wait(microsoft.refresh(app, grant.cache))
    assert isinstance(outcome, Granted)
    inbox.wait(microsoft.refresh(app, outcome.cache))
    assert discoveries() == 1
    sign_in(app)
    assert discoveries() == 2


def test_the_apps_ca_file_is_trusted_whatever_the_environment_names(
    grant: Granted,
    microsoft: Microsoft,
    inbox: Inbox,
    app: App,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.file))
    assert isinstance(inbox.wait(microsoft.refresh(app, grant.cache)), Granted)


def test_an_empty_cache_asks_for_a_sign_in_without_asking_microsoft(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App
) -> None:
    outcome = inbox.wait(microsoft.refresh(app, ""))
    assert isinstance(outcome, SignInAgain)
    assert outcome.error.code == "no_grant"
    assert token_requests(idp) == []


# --- the answer at the redirect address


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"state": "another"}, "answer_mismatch"),
        ({"code": ""}, "answer_mismatch"),
        ({"code": "", "error": "access_denied", "error_description": "AADSTS65004: declined"}, "access_denied"),
        ({"client_info": "%%%"}, None),
    ],
)
def test_a_doubtful_answer_redeems_nothing(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, change: dict[str, str], code: str | None
) -> None:
    flow = inbox.wait(microsoft.begin_code(app, BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    fields = browser.sign_in(flow.address, idp.ca_file).fields
    outcome = inbox.wait(microsoft.redeem_code(app, flow, {**fields, **change}))
    if code is None:
        assert isinstance(outcome, Granted)
    else:
        assert isinstance(outcome, SignInAgain)
        assert outcome.error.code == code
        assert token_requests(idp) == []


def test_a_token_made_for_another_sign_in_is_refused(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App
) -> None:
    flow = inbox.wait(microsoft.begin_code(app, BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    fields = browser.sign_in(flow.address, idp.ca_file).fields
    other = replace(flow, secrets={**flow.secrets, "nonce": "of another"})
    outcome = inbox.wait(microsoft.redeem_code(app, other, fields))
    assert isinstance(outcome, SignInAgain)
    assert outcome.error.code == "nonce_mismatch"


def test_a_person_who_declines_is_told_so(sign_in: Ask, idp: IdentityProvider, app: App) -> None:
    idp.sign_in_as(ALICE, declines=True)
    outcome = sign_in(app)
    assert isinstance(outcome, SignInAgain)
    assert outcome.error.codes == (65004,)  # from the text: a redirect carries no list of numbers


def test_the_address_asks_for_the_person_the_redirect_and_the_code_in_a_query(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App
) -> None:
    flow = inbox.wait(microsoft.begin_code(app, BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    answer = browser.sign_in(flow.address, idp.ca_file)
    assert (answer.target, answer.posted) == (f"{BACK}/", False)
    assert answer.fields["state"] == flow.state
    assert "login_hint=alice%40contoso.com" in flow.address


# --- device code


@pytest.fixture
def device(microsoft: Microsoft, inbox: Inbox, app: App) -> DeviceFlow:
    flow = inbox.wait(microsoft.begin_device(app))
    assert isinstance(flow, DeviceFlow)
    return flow


def test_a_device_code_is_pending_until_it_is_approved(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, device: DeviceFlow
) -> None:
    assert device.user_code in device.message
    assert device.address == f"{idp.base}/devicelogin"
    assert device.interval_s == 1  # asked for 0; msal would never pause
    assert inbox.wait(microsoft.poll_device(app, device)) == StillPending(1)
    assert inbox.wait(microsoft.poll_device(app, device)) == StillPending(1)
    idp.approve_device(device.user_code, ALICE)
    outcome = inbox.wait(microsoft.poll_device(app, device))
    assert isinstance(outcome, Granted)
    assert outcome.username == ALICE
    assert isinstance(inbox.wait(microsoft.refresh(app, outcome.cache)), Granted)


def test_a_poll_that_comes_too_soon_is_told_to_slow_down(
    microsoft: Microsoft, inbox: Inbox, tmp_path: Path, app: App
) -> None:
    with IdentityProvider(tmp_path, device_interval_s=30) as strict:
        strict.add_app(PUBLIC)
        slow = replace(app, authority=strict.authority)
        flow = inbox.wait(microsoft.begin_device(slow))
        assert isinstance(flow, DeviceFlow)
        assert inbox.wait(microsoft.poll_device(slow, flow)) == StillPending(30)
        assert inbox.wait(microsoft.poll_device(slow, flow)) == StillPending(35)


def test_a_denied_device_code_and_one_that_is_used_up_need_a_new_sign_in(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, device: DeviceFlow
) -> None:
    idp.deny_device(device.user_code)
    outcome = inbox.wait(microsoft.poll_device(app, device))
    assert isinstance(outcome, SignInAgain)
    assert outcome.error.code == "authorization_declined"


def test_a_poll_in_an_outage_can_be_repeated_at_once(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, device: DeviceFlow
) -> None:
    idp.fail(Failure.UNAVAILABLE, times=1)
    assert isinstance(inbox.wait(microsoft.poll_device(app, device)), TryLater)
    assert inbox.wait(microsoft.poll_device(app, device)) == StillPending(1)


@pytest.mark.parametrize("failure", [Failure.UNAVAILABLE, Failure.THROTTLED, Failure.HTML_PAGE])
def test_a_device_code_that_cannot_be_had_now(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, failure: Failure
) -> None:
    idp.fail(failure, at=(DEVICE_CODE,))
    assert isinstance(inbox.wait(microsoft.begin_device(app)), TryLater)


def test_a_device_code_for_an_app_that_microsoft_does_not_know(microsoft: Microsoft, inbox: Inbox, app: App) -> None:
    outcome = inbox.wait(microsoft.begin_device(replace(app, application_id=CERTIFIED.replace("4", "9"))))
    assert isinstance(outcome, AppMisconfigured)
    assert outcome.error.codes == (700016,)


def test_an_app_with_a_secret_gets_no_device_code(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App
) -> None:
    outcome = inbox.wait(microsoft.begin_device(replace(app, client_secret=Secret(SECRET))))
    assert isinstance(outcome, AppMisconfigured)
    assert "browser" in outcome.error.text
    assert idp.requests == []


# --- apps that prove who they are


def test_a_web_registration_signs_in_and_refreshes_with_its_secret(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, sign_in: Ask
) -> None:
    web = replace(app, application_id=WEB, client_secret=Secret(SECRET))
    granted = sign_in(web)
    assert isinstance(granted, Granted)
    refreshed = inbox.wait(microsoft.refresh(web, granted.cache))
    assert isinstance(refreshed, Granted)
    assert idp.user_of(refreshed.access_token) == ALICE
    wrong = inbox.wait(microsoft.refresh(replace(web, client_secret=Secret("wrong")), refreshed.cache))
    assert isinstance(wrong, AppMisconfigured)
    assert wrong.error.codes == (7000215,)


def test_a_certificate_stands_for_a_secret(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, sign_in: Ask, certificate: Certificate
) -> None:
    certified = replace(app, application_id=CERTIFIED, certificate=certificate)
    granted = sign_in(certified)
    assert isinstance(granted, Granted)
    assert isinstance(inbox.wait(microsoft.refresh(certified, granted.cache)), Granted)


def test_an_app_of_its_own_right_gets_a_token_and_nothing_to_keep(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, certificate: Certificate
) -> None:
    with_secret = replace(app, application_id=DAEMON, client_secret=Secret(SECRET), flow=Flow.APP_ONLY)
    with_certificate = replace(app, application_id=CERTIFIED, certificate=certificate, flow=Flow.APP_ONLY)
    for daemon in (with_secret, with_certificate):
        first, second = (inbox.wait(microsoft.client_token(daemon)) for _ in range(2))
        assert isinstance(first, Granted)
        assert isinstance(second, Granted)
        assert idp.may_open(first.access_token, "sales@contoso.com")
        assert (first.cache, first.username, first.home_account_id) == ("", "", "")
        assert first.access_token != second.access_token


@pytest.mark.parametrize("content", [b"", b"not a key", b"\xff\xfe", open_pem(ec.generate_private_key(ec.SECP256R1()))])
def test_a_key_that_is_none_is_the_configurations_fault(
    microsoft: Microsoft, inbox: Inbox, app: App, certificate: Certificate, content: bytes
) -> None:
    certificate.key.write_bytes(content)
    outcome = inbox.wait(microsoft.client_token(replace(app, application_id=CERTIFIED, certificate=certificate)))
    assert isinstance(outcome, AppMisconfigured)
    assert outcome.error.code == "bad_certificate"
    assert str(certificate.key) in outcome.error.text


def test_a_file_that_is_missing_is_named(
    microsoft: Microsoft, inbox: Inbox, app: App, certificate: Certificate
) -> None:
    certificate.file.unlink()
    for broken in (
        replace(app, application_id=CERTIFIED, certificate=certificate),
        replace(app, ca_file=certificate.file),
    ):
        outcome = inbox.wait(microsoft.client_token(replace(broken, flow=Flow.APP_ONLY)))
        assert isinstance(outcome, AppMisconfigured)
        assert str(certificate.file) in outcome.error.text


# --- each trouble's outcome (FACTS 4.5)


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (Failure.THROTTLED, TryLater, "service_unavailable"),
        (Failure.UNAVAILABLE, TryLater, "service_unavailable"),
        (Failure.HTML_PAGE, TryLater, "unreadable_answer"),
        (Failure.DISCONNECTS, TryLater, "network_error"),
        (Failure.TEMPORARILY_UNAVAILABLE, TryLater, None),
        (Failure.LOOP_DETECTED, TryLater, None),
        (Failure.INVALID_GRANT, SignInAgain, None),
        (Failure.MFA_NEEDED, SignInAgain, None),
        (Failure.CONSENT_REQUIRED, SignInAgain, None),
        (Failure.CONDITIONAL_ACCESS, AdminMustAct, None),
        (Failure.ADMIN_CONSENT_NEEDED, AdminMustAct, None),
        (Failure.SECRET_EXPIRED, AppMisconfigured, None),
    ],
)
def test_a_refresh_that_fails_has_an_outcome(
    microsoft: Microsoft,
    inbox: Inbox,
    idp: IdentityProvider,
    app: App,
    grant: Granted,
    failure: Failure,
    kind: type[NotGranted],
    code: str | None,
) -> None:
    idp.fail(failure)
    outcome = inbox.wait(microsoft.refresh(app, grant.cache))
    assert isinstance(outcome, kind)
    if code is not None:
        assert outcome.error.code == code
    if isinstance(failure.value, int):
        assert outcome.error.codes == (failure.value,)
        assert outcome.error.text.startswith(f"AADSTS{failure.value}: ")
        assert outcome.error.correlation_id
        assert outcome.error.timestamp


def test_how_long_to_wait_is_part_of_the_outcome(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted
) -> None:
    idp.fail(Failure.THROTTLED)
    throttled = inbox.wait(microsoft.refresh(app, grant.cache))
    idp.fail(Failure.LOOP_DETECTED)
    looping = inbox.wait(microsoft.refresh(app, grant.cache))
    idp.fail(Failure.UNAVAILABLE)
    unavailable = inbox.wait(microsoft.refresh(app, grant.cache))
    assert [o.retry_after_s for o in (throttled, looping, unavailable) if isinstance(o, TryLater)] == [2, 300, None]


def test_a_revoked_person_must_sign_in_again_and_can(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted, sign_in: Ask
) -> None:
    idp.revoke(ALICE)
    assert isinstance(inbox.wait(microsoft.refresh(app, grant.cache)), SignInAgain)
    assert isinstance(sign_in(app), Granted)


def test_a_service_that_does_not_answer_is_not_waited_for_for_ever(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", (5.0, 0.2))
    idp.fail(Failure.HANGS)
    outcome = inbox.wait(microsoft.refresh(app, grant.cache))
    idp.heal()
    assert isinstance(outcome, TryLater)
    assert outcome.error.code == "network_error"
    assert "in time" in outcome.error.text


def test_a_service_that_is_gone_and_one_that_is_not_trusted(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, grant: Granted
) -> None:
    distrusted = inbox.wait(microsoft.refresh(replace(app, ca_file=None), grant.cache))
    idp.stop()
    gone = inbox.wait(microsoft.refresh(app, grant.cache))
    assert isinstance(distrusted, TryLater)
    assert "not trusted" in distrusted.error.text
    assert isinstance(gone, TryLater)
    assert "cannot be reached" in gone.error.text


@pytest.mark.parametrize("failure", [Failure.UNAVAILABLE, Failure.THROTTLED, Failure.HTML_PAGE])
def test_a_discovery_that_fails_for_now_is_no_wrong_tenant(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App, failure: Failure
) -> None:
    idp.fail(failure, at=(DISCOVERY,))
    assert isinstance(inbox.wait(microsoft.begin_code(app, BACK, ALICE)), TryLater)
    assert len(idp.requests) == 1  # in particular, no thread sleeps out a Retry-After and asks again
    idp.heal()
    assert isinstance(inbox.wait(microsoft.begin_code(app, BACK, ALICE)), CodeFlow)


def test_a_wrong_tenant_is_the_configurations_fault(
    microsoft: Microsoft, inbox: Inbox, idp: IdentityProvider, app: App
) -> None:
    said_by = {f"{idp.base}/nowhere.example": "AADSTS90002", "http://localhost/tenant": "bad_authority"}
    for authority, code in said_by.items():
        outcome = inbox.wait(microsoft.begin_code(replace(app, authority=authority), BACK, ALICE))
        assert isinstance(outcome, AppMisconfigured)
        assert outcome.error.trace.code == code


# --- clouds


@pytest.mark.parametrize(
    ("cloud", "resource"),
    [
        (Cloud.GLOBAL, "https://outlook.office.com"),
        (Cloud.GCC_HIGH, "https://outlook.office365.us"),
        (Cloud.DOD, "https://outlook.office365.us"),
        (Cloud.CHINA, "https://partner.outlook.cn"),
    ],
)
def test_all_three_permissions_are_asked_for_at_once_from_the_clouds_own_resource(
    microsoft: Microsoft, inbox: Inbox, app: App, cloud: Cloud, resource: str
) -> None:
    flow = inbox.wait(microsoft.begin_code(replace(app, cloud=cloud), BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    scopes = flow.secrets["scope"]
    assert isinstance(scopes, list)
    own = {"openid", "profile", "offline_access"}
    assert set(scopes) - own == {
        f"{resource}/IMAP.AccessAsUser.All",
        f"{resource}/POP.AccessAsUser.All",
        f"{resource}/SMTP.Send",
    }


# --- secrets


def test_no_secret_is_printed_or_logged(
    microsoft: Microsoft,
    inbox: Inbox,
    idp: IdentityProvider,
    app: App,
    sign_in: Ask,
    device: DeviceFlow,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    web = replace(app, application_id=WEB, client_secret=Secret(SECRET))
    flow = inbox.wait(microsoft.begin_code(web, BACK, ALICE))
    assert isinstance(flow, CodeFlow)
    fields = browser.sign_in(flow.address, idp.ca_file).fields
    granted = inbox.wait(microsoft.redeem_code(web, flow, fields))
    assert isinstance(granted, Granted)
    idp.fail(Failure.HTML_PAGE, times=1)
    page = inbox.wait(microsoft.refresh(web, granted.cache))
    later = TryLater(page.error, 1.0, granted.cache) if isinstance(page, TryLater) else page
    used = inbox.wait(microsoft.redeem_code(web, flow, fields))
    printed = " ".join(map(repr, (flow, device, granted, page, later, used, web))) + caplog.text
    verifier, nonce = str(flow.secrets["code_verifier"]), str(flow.secrets["nonce"])
    for secret in (SECRET, fields["code"], granted.access_token, device.user_code, verifier, nonce):
        assert secret not in printed
    assert '"RefreshToken"' not in printed
