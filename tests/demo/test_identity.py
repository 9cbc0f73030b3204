"""The stand-in sign-in service is as strict as Entra: each rule alone, by plain HTTP, and whole dances by msal."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import msal
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from proxy.demo import browser
from proxy.demo.doors import AUTHORIZE
from proxy.demo.identity import EVERYWHERE, EXCHANGE_SCOPES, TENANT, Failure, IdentityProvider, Refused

PUBLIC = "11111111-1111-4111-8111-111111111111"
WEB = "22222222-2222-4222-8222-222222222222"
DAEMON = "33333333-3333-4333-8333-333333333333"
SINGLE = "44444444-4444-4444-8444-444444444444"
PERSONAL = "55555555-5555-4555-8555-555555555555"
EVERYBODY = "66666666-6666-4666-8666-666666666666"
SECRET = "s3cret~value"
ALICE, BOB, CAROL = "alice@contoso.com", "bob@contoso.com", "carol@outlook.com"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SCOPE = " ".join(("openid", "profile", "offline_access", *EXCHANGE_SCOPES))
APP_SCOPE = "https://outlook.office365.com/.default"

Provider = IdentityProvider
Fields = dict[str, str]


class Clock:
    """Starts now, since msal has its own, and stands still."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_bundle_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would win over the `verify` of msal's own session, as requests has it."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def idp(tmp_path: Path, clock: Clock) -> Iterator[Provider]:
    with IdentityProvider(tmp_path, clock=clock) as provider:
        provider.add_person(ALICE, also_may_open=("sales@contoso.com",))
        provider.add_person(BOB)
        provider.add_person(CAROL)
        provider.add_app(PUBLIC)
        provider.add_app(WEB, public=False, secret=SECRET, redirect_uris=("https://mail.contoso.com/back",))
        provider.add_app(DAEMON, public=False, secret=SECRET, app_only=True, may_open=("sales@contoso.com",))
        provider.add_app(SINGLE, account_types=TENANT)
        provider.add_app(PERSONAL, account_types="consumers")
        provider.add_app(EVERYBODY, account_types="common")
        provider.sign_in_as(ALICE)
        yield provider


def query(**changes: str | None) -> Fields:
    fields: dict[str, str | None] = {
        "client_id": PUBLIC,
        "response_type": "code",
        "redirect_uri": "http://localhost:51234",
        "scope": SCOPE,
        "state": "st&te",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def at_browser(idp: Provider, **changes: str | None) -> browser.Return:
    address = f"{idp.base}/{changes.pop('tenant', TENANT)}/oauth2/v2.0/authorize"
    request = requests.Request("GET", address, params=query(**changes)).prepare()
    assert request.url is not None
    return browser.sign_in(request.url, idp.ca_file)


def post(idp: Provider, path: str, form: Fields, tenant: str = TENANT) -> requests.Response:
    address = f"{idp.base}/{tenant}/oauth2/v2.0/{path}"
    return requests.post(address, data=form, verify=str(idp.ca_file), timeout=20)


def redeem(idp: Provider, code: str, *, tenant: str = TENANT, **changes: str | None) -> requests.Response:
    form: dict[str, str | None] = {
        "client_id": PUBLIC,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "http://localhost:51234",
        "code_verifier": VERIFIER,
        **changes,
    }
    return post(idp, "token", {k: v for k, v in form.items() if v is not None}, tenant)


def refresh(idp: Provider, token: str, **changes: str) -> requests.Response:
    form = {"client_id": PUBLIC, "grant_type": "refresh_token", "refresh_token": token, "scope": SCOPE, **changes}
    return post(idp, "token", form)


def refused(answer: requests.Response) -> tuple[int, str, int]:
    """(status, OAuth error, AADSTS number) of a refusal that has every field of Entra's."""
    body = answer.json()
    assert set(body) >= {"error", "error_description", "error_codes", "timestamp", "trace_id", "correlation_id"}
    (code,) = body["error_codes"]
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    return answer.status_code, body["error"], code


def signed_in(idp: Provider) -> dict[str, Any]:
    answer = redeem(idp, at_browser(idp).fields["code"])
    assert answer.status_code == 200, answer.json()["error_description"]
    return dict(answer.json())


# The authorize page


def test_a_code_and_the_state_come_back_to_the_redirect_uri(idp: Provider) -> None:
    back = at_browser(idp)
    assert back.target == "http://localhost:51234/"  # an address without path comes back with one (FACTS 1.3)
    assert set(back.fields) == {"code", "state"}
    assert back.fields["state"] == "st&te"


def test_form_post_carries_the_same_fields(idp: Provider) -> None:
    back = at_browser(idp, response_mode="form_post")
    assert back.posted
    assert back.fields["state"] == "st&te"
    assert redeem(idp, back.fields["code"]).status_code == 200


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        ("http://localhost", True),
        ("http://localhost/", True),
        ("http://localhost:1/", True),
        ("http://localhost:1/path", False),
        ("http://127.0.0.1:1/", False),
        ("https://localhost/", False),
        ("http://localhost.evil.example/", False),
        ("http://localhost:port/", False),
    ],
)
def test_only_the_port_of_localhost_may_differ(idp: Provider, uri: str, good: bool) -> None:
    if good:
        assert "code" in at_browser(idp, redirect_uri=uri).fields
    else:
        with pytest.raises(browser.SignInPage, match="AADSTS50011"):
            at_browser(idp, redirect_uri=uri)


@pytest.mark.parametrize("uri", ["https://mail.contoso.com:8443/back", "https://mail.contoso.com/Back"])
def test_other_hosts_match_wholly(idp: Provider, uri: str) -> None:
    with pytest.raises(browser.SignInPage, match="AADSTS50011"):
        at_browser(idp, client_id=WEB, redirect_uri=uri)


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type", 700054),
        ({"code_challenge": None}, "invalid_request", 9002325),
        ({"code_challenge_method": "plain"}, "invalid_request", 501491),
        ({"scope": f"{SCOPE} User.Read"}, "invalid_scope", 70011),
        ({"scope": "openid offline_access"}, "invalid_scope", 28003),
        ({"scope": "https://outlook.office.com/Mail.Everything"}, "invalid_client", 650053),
    ],
)
def test_what_is_wrong_comes_back_to_the_program(
    idp: Provider, changes: dict[str, str | None], error: str, code: int
) -> None:
    fields = at_browser(idp, **changes).fields
    assert fields["error"] == error
    assert fields["error_description"].startswith(f"AADSTS{code}: ")
    assert fields["state"] == "st&te"


def test_without_consent_there_is_no_code(idp: Provider) -> None:
    app = idp.add_app(PUBLIC, consented=False)
    assert at_browser(idp).fields["error"] == "consent_required"
    app.consented = True
    assert "code" in at_browser(idp).fields


def test_a_permission_that_the_app_does_not_declare_is_not_consented(idp: Provider) -> None:
    idp.add_app(PUBLIC, permissions=("IMAP.AccessAsUser.All",))
    assert "AADSTS65001" in at_browser(idp).fields["error_description"]


def test_a_person_who_declines(idp: Provider) -> None:
    idp.sign_in_as(ALICE, declines=True)
    assert at_browser(idp).fields["error"] == "access_denied"


@pytest.mark.parametrize(
    ("client", "tenant", "code"),
    [
        (SINGLE, "common", 50194),
        (SINGLE, "organizations", 50194),
        (PUBLIC, "consumers", 9002332),
        (PERSONAL, "common", 9002331),
        (PERSONAL, "organizations", 9002331),
        (PUBLIC, "nowhere.example", 90002),
        ("99999999-9999-4999-8999-999999999999", TENANT, 700016),
        (None, TENANT, 90014),
    ],
)
def test_registration_and_authority_must_agree(idp: Provider, client: str | None, tenant: str, code: int) -> None:
    with pytest.raises(browser.SignInPage, match=f"AADSTS{code}:"):
        at_browser(idp, tenant=tenant, client_id=client)
    form = {"client_id": client} if client else {}
    assert refused(post(idp, "devicecode", {**form, "scope": SCOPE}, tenant))[2] == code


@pytest.mark.parametrize(
    ("person", "client", "tenant", "good"),
    [
        (ALICE, PUBLIC, "organizations", True),
        (ALICE, PUBLIC, "contoso.com", True),
        (ALICE, EVERYBODY, "common", True),
        (CAROL, EVERYBODY, "common", True),
        (CAROL, PERSONAL, "consumers", True),
        (CAROL, PUBLIC, "organizations", False),
        (CAROL, EVERYBODY, "organizations", False),
        (CAROL, EVERYBODY, TENANT, False),
        (ALICE, PERSONAL, "consumers", False),
    ],
)
def test_the_kind_of_account_must_fit(idp: Provider, person: str, client: str, tenant: str, good: bool) -> None:
    idp.sign_in_as(person)
    if good:
        code = at_browser(idp, tenant=tenant, client_id=client).fields["code"]
        token = redeem(idp, code, tenant=tenant, client_id=client).json()["access_token"]
        assert idp.user_of(token) == person
    else:
        with pytest.raises(browser.SignInPage, match="AADSTS50020"):
            at_browser(idp, tenant=tenant, client_id=client)


# Codes


def test_the_answer_has_what_msal_reads(idp: Provider) -> None:
    code = at_browser(idp, nonce="n0nce").fields["code"]
    answer = redeem(idp, code, client_info="1").json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert answer["scope"] == " ".join(EXCHANGE_SCOPES)
    claims = json.loads(base64.urlsafe_b64decode(answer["id_token"].split(".")[1] + "=="))
    assert (claims["preferred_username"], claims["nonce"], claims["aud"]) == (ALICE, "n0nce", PUBLIC)
    who = json.loads(base64.urlsafe_b64decode(answer["client_info"] + "=="))
    assert who == {"uid": claims["oid"], "utid": claims["tid"]}


def test_without_offline_access_there_is_no_refresh_token(idp: Provider) -> None:
    answer = redeem(idp, at_browser(idp, scope=" ".join(EXCHANGE_SCOPES)).fields["code"]).json()
    assert "refresh_token" not in answer
    assert "id_token" not in answer


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"code_verifier": "w" * 43}, (400, "invalid_grant", 501481)),
        ({"code_verifier": None}, (400, "invalid_grant", 501481)),
        ({"redirect_uri": "http://localhost:51235"}, (401, "invalid_client", 500112)),
        ({"client_id": EVERYBODY}, (400, "invalid_grant", 70000)),
        ({"tenant": "organizations"}, (400, "invalid_grant", 70000)),
        ({"code": "1.guess"}, (400, "invalid_grant", 70000)),
        ({"client_secret": SECRET}, (401, "invalid_client", 700025)),
        ({"grant_type": "password"}, (400, "unsupported_grant_type", 70003)),
        ({"grant_type": None}, (400, "invalid_request", 90014)),
    ],
)
def test_a_code_is_redeemed_by_its_own_program_only(
    idp: Provider, changes: Any, expected: tuple[int, str, int]
) -> None:
    code = at_browser(idp).fields["code"]
    assert refused(redeem(idp, **{"code": code, **changes})) == expected
    assert redeem(idp, code).status_code == 200  # a failed guess does not burn the code


def test_a_code_is_good_once(idp: Provider) -> None:
    code = at_browser(idp).fields["code"]
    assert redeem(idp, code).status_code == 200
    assert refused(redeem(idp, code)) == (400, "invalid_grant", 54005)


def test_a_code_expires(idp: Provider, clock: Clock) -> None:
    code = at_browser(idp).fields["code"]
    clock.now += 601
    assert refused(redeem(idp, code)) == (400, "invalid_grant", 70008)


def test_a_web_registration_needs_its_secret(idp: Provider) -> None:
    web = {"client_id": WEB, "redirect_uri": "https://mail.contoso.com/back"}
    code = at_browser(idp, **web).fields["code"]
    assert refused(redeem(idp, code, **web)) == (401, "invalid_client", 7000218)
    assert refused(redeem(idp, code, client_secret="secret-id", **web)) == (401, "invalid_client", 7000215)
    assert redeem(idp, code, client_secret=SECRET, **web).status_code == 200


# Refresh


def test_each_refresh_brings_a_new_refresh_token(idp: Provider) -> None:
    first = signed_in(idp)
    second = refresh(idp, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    assert idp.user_of(second["access_token"]) == ALICE
    assert refresh(idp, first["refresh_token"]).status_code == 200  # Entra leaves the old one valid (FACTS 3.3)


def test_in_strict_mode_a_refresh_token_is_good_once(tmp_path: Path) -> None:
    with IdentityProvider(tmp_path, single_use_refresh_tokens=True) as idp:
        idp.add_person(ALICE)
        idp.add_app(PUBLIC)
        idp.sign_in_as(ALICE)
        first = signed_in(idp)
        assert refresh(idp, first["refresh_token"]).status_code == 200
        assert refused(refresh(idp, first["refresh_token"])) == (400, "invalid_grant", 50173)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"client_id": EVERYBODY}, (400, "invalid_grant", 70000)),
        ({"refresh_token": "0.guess"}, (400, "invalid_grant", 70000)),
        ({"scope": f"{SCOPE} User.Read"}, (400, "invalid_scope", 70011)),
        ({"client_secret": SECRET}, (401, "invalid_client", 700025)),
    ],
)
def test_a_refresh_is_checked_too(idp: Provider, changes: Fields, expected: tuple[int, str, int]) -> None:
    token = signed_in(idp)["refresh_token"]
    assert refused(refresh(idp, **{"token": token, **changes})) == expected


def test_a_refresh_cannot_widen_the_grant(idp: Provider) -> None:
    narrow = f"offline_access {EXCHANGE_SCOPES[0]}"
    token = redeem(idp, at_browser(idp, scope=narrow).fields["code"]).json()["refresh_token"]
    assert refused(refresh(idp, token)) == (400, "invalid_grant", 65001)
    assert refresh(idp, token, scope=narrow).json()["scope"] == EXCHANGE_SCOPES[0]


def test_revoked_means_both_kinds_of_token(idp: Provider) -> None:
    answer = signed_in(idp)
    other = idp.issue(BOB)
    idp.revoke(ALICE)
    assert idp.user_of(answer["access_token"]) is None
    assert refused(refresh(idp, answer["refresh_token"])) == (400, "invalid_grant", 50173)
    assert idp.user_of(other) == BOB


# Device codes


def start_device(idp: Provider) -> dict[str, Any]:
    answer = post(idp, "devicecode", {"client_id": PUBLIC, "scope": SCOPE})
    assert answer.status_code == 200
    assert set(answer.json()) == {"device_code", "user_code", "verification_uri", "expires_in", "interval", "message"}
    return dict(answer.json())


def poll(idp: Provider, flow: dict[str, Any], client: str = PUBLIC) -> requests.Response:
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    return post(idp, "token", {"client_id": client, "grant_type": grant, "device_code": flow["device_code"]})


def test_a_device_waits_for_its_person(idp: Provider, clock: Clock) -> None:
    flow = start_device(idp)
    assert refused(poll(idp, flow)) == (400, "authorization_pending", 70016)
    idp.approve_device(flow["user_code"].lower(), ALICE)
    clock.now += flow["interval"]
    assert idp.user_of(poll(idp, flow).json()["access_token"]) == ALICE
    clock.now += flow["interval"]
    assert refused(poll(idp, flow)) == (400, "invalid_grant", 54005)


def test_a_hasty_device_is_slowed_down(idp: Provider, clock: Clock) -> None:
    flow = start_device(idp)
    poll(idp, flow)
    assert refused(poll(idp, flow))[1] == "slow_down"
    clock.now += flow["interval"]  # by now five seconds more are due (RFC 8628 §3.5)
    assert refused(poll(idp, flow))[1] == "slow_down"
    clock.now += flow["interval"] + 10
    assert refused(poll(idp, flow))[1] == "authorization_pending"


def test_a_declined_an_expired_and_an_unknown_device(idp: Provider, clock: Clock) -> None:
    declined, expired = start_device(idp), start_device(idp)
    idp.deny_device(declined["user_code"])
    assert refused(poll(idp, declined))[1] == "authorization_declined"
    assert refused(poll(idp, expired, client=EVERYBODY))[1] == "bad_verification_code"
    clock.now += 900
    assert refused(poll(idp, expired)) == (400, "expired_token", 70019)
    assert refused(poll(idp, {"device_code": "guess"})) == (400, "bad_verification_code", 70018)


def test_a_device_of_a_web_registration_needs_the_secret(idp: Provider) -> None:
    flow = post(idp, "devicecode", {"client_id": WEB, "scope": SCOPE}).json()
    assert refused(poll(idp, flow, client=WEB)) == (401, "invalid_client", 7000218)


# App-only


def client_credentials(idp: Provider, tenant: str = TENANT, **changes: str) -> requests.Response:
    form = {"client_id": DAEMON, "grant_type": "client_credentials", "client_secret": SECRET, "scope": APP_SCOPE}
    return post(idp, "token", {**form, **changes}, tenant)


def test_an_app_opens_the_mailboxes_it_has_rights_on(idp: Provider) -> None:
    answer = client_credentials(idp).json()
    assert "refresh_token" not in answer
    assert idp.user_of(answer["access_token"]) == "sales@contoso.com"
    assert idp.may_open(answer["access_token"], "Sales@Contoso.com")
    assert not idp.may_open(answer["access_token"], ALICE)


@pytest.mark.parametrize(
    ("tenant", "changes", "code"),
    [
        ("common", {}, 50194),
        ("organizations", {}, 9001023),
        (TENANT, {"scope": EXCHANGE_SCOPES[0]}, 1002012),
        (TENANT, {"client_secret": "wrong"}, 7000215),
        (TENANT, {"client_id": PUBLIC}, 700025),
    ],
)
def test_client_credentials_have_rules(idp: Provider, tenant: str, changes: Fields, code: int) -> None:
    if code == 50194:
        idp.add_app(DAEMON, public=False, secret=SECRET, account_types=TENANT, app_only=True)
    assert refused(client_credentials(idp, tenant, **changes))[2] == code


def test_an_app_token_without_roles_or_with_the_wrong_audience_opens_nothing(idp: Provider) -> None:
    wrong_audience = client_credentials(idp, scope="https://outlook.office.com/.default").json()["access_token"]
    assert idp.user_of(wrong_audience) is None
    idp.add_app(DAEMON, public=False, secret=SECRET, may_open=("sales@contoso.com",))
    assert idp.user_of(client_credentials(idp).json()["access_token"]) is None


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def certificate(tmp_path: Path, key: rsa.RSAPrivateKey) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mailferry")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=999))
    file = tmp_path / "app.pem"
    file.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


Sign = Callable[..., requests.Response]


@pytest.fixture
def with_assertion(idp: Provider, certificate: Path, key: rsa.RSAPrivateKey, clock: Clock) -> Sign:
    idp.add_app(DAEMON, public=False, certificate=certificate, app_only=True, may_open=("sales@contoso.com",))
    der = x509.load_pem_x509_certificate(certificate.read_bytes())
    thumbprints = {
        "RS256": ("x5t", der.fingerprint(hashes.SHA1())),
        "PS256": ("x5t#S256", der.fingerprint(hashes.SHA256())),
    }

    def ask(algorithm: str, *, key: rsa.RSAPrivateKey = key, fingerprint: bytes | None = None, **claims: Any) -> Any:
        header, right = thumbprints[algorithm]
        shown = right if fingerprint is None else fingerprint
        headers = {header: base64.urlsafe_b64encode(shown).rstrip(b"=").decode()} if shown else {}
        audience = f"{idp.authority}/oauth2/v2.0/token"
        body = {"aud": audience, "iss": DAEMON, "sub": DAEMON, "exp": clock.now + 600, **claims}
        form = {
            "client_id": DAEMON,
            "grant_type": "client_credentials",
            "scope": APP_SCOPE,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode(body, key, algorithm=algorithm, headers=headers),
        }
        return post(idp, "token", form)

    return ask


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_certificate_proves_the_app(idp: Provider, with_assertion: Sign, algorithm: str) -> None:
    assert idp.user_of(with_assertion(algorithm).json()["access_token"]) == "sales@contoso.com"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": 1_700_000_000}, 700024),
        ({"aud": "https://elsewhere.example/token"}, 700023),
        ({"iss": PUBLIC}, 700021),
        ({"fingerprint": b"\0" * 20}, 700027),
        ({"fingerprint": b""}, 700027),
    ],
)
def test_an_assertion_is_verified(with_assertion: Sign, changes: dict[str, Any], code: int) -> None:
    assert refused(with_assertion("RS256", **changes)) == (401, "invalid_client", code)


def test_an_assertion_of_another_key_is_refused(with_assertion: Sign) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert refused(with_assertion("PS256", key=other)) == (401, "invalid_client", 700027)


# Introspection


@pytest.mark.parametrize("way", ["GET", "POST", "BEARER"])
def test_introspection_in_each_of_dovecots_modes(idp: Provider, way: str) -> None:
    def ask(token: str) -> Any:
        request = {
            "GET": requests.Request("GET", f"{idp.introspection_url}?token=" + token),
            "POST": requests.Request("POST", idp.introspection_url, data={"token": token}),
            "BEARER": requests.Request("GET", idp.introspection_url, headers={"Authorization": f"Bearer {token}"}),
        }[way]
        with requests.Session() as session:
            return session.send(request.prepare(), verify=str(idp.ca_file), timeout=20).json()

    good = ask(idp.issue(ALICE))
    assert (good["active"], good["username"], good["aud"]) == (True, ALICE, "https://outlook.office.com")
    assert good["scope"] == " ".join(EXCHANGE_SCOPES)
    assert ask("guess") == {"active": False}


def test_a_token_is_good_until_it_expires(idp: Provider, clock: Clock) -> None:
    token = idp.issue(ALICE, lifetime_s=60)
    clock.now += 59
    assert idp.user_of(token) == ALICE
    clock.now += 1
    assert idp.user_of(token) is None


@pytest.mark.parametrize("scope", ["https://graph.microsoft.com/IMAP.AccessAsUser.All", "IMAP.AccessAsUser.All"])
def test_a_graph_token_is_issued_but_exchange_does_not_take_it(idp: Provider, scope: str) -> None:
    token = redeem(idp, at_browser(idp, scope=scope).fields["code"]).json()["access_token"]
    assert idp.user_of(token) is None


def test_shared_mailboxes(idp: Provider) -> None:
    token = idp.issue(ALICE)
    assert idp.may_open(token, "SALES@contoso.com")
    assert idp.may_open(token, ALICE)
    assert not idp.may_open(token, BOB)


# Failures


def test_troubles_of_http(idp: Provider) -> None:
    token = signed_in(idp)["refresh_token"]
    idp.fail(Failure.THROTTLED, times=1)
    throttled = refresh(idp, token)
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "2")
    assert refresh(idp, token).status_code == 200
    idp.fail(Failure.UNAVAILABLE)
    assert [refresh(idp, token).status_code for _ in range(2)] == [503, 503]
    idp.fail(Failure.HTML_PAGE)
    with pytest.raises(requests.exceptions.JSONDecodeError):
        refresh(idp, token).json()
    idp.fail(Failure.DISCONNECTS)
    with pytest.raises(requests.ConnectionError):
        refresh(idp, token)
    idp.fail(Failure.HANGS)
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{idp.authority}/oauth2/v2.0/token", verify=str(idp.ca_file), timeout=(20, 0.2))
    idp.heal()
    assert refresh(idp, token).status_code == 200


@pytest.mark.parametrize("kind", [kind for kind in Failure if isinstance(kind.value, int)])
def test_refusals_of_the_token_endpoint(idp: Provider, kind: Failure) -> None:
    token = signed_in(idp)["refresh_token"]
    idp.fail(kind)
    assert refused(refresh(idp, token))[2] == kind.value
    discovery = f"{idp.authority}/v2.0/.well-known/openid-configuration"
    assert requests.get(discovery, verify=str(idp.ca_file), timeout=20).status_code == 200


@pytest.mark.parametrize("code", [50011, 70043, 4_242_424])
def test_any_refusal_can_be_planted(idp: Provider, code: int) -> None:
    idp.fail(Refused(code, error="odd", text="Because of <b>.", suberror="odder"), times=1)
    answer = refresh(idp, "1.x")
    said = answer.json()
    assert (said["error"], said["suberror"], said["error_codes"]) == ("odd", "odder", [code])
    found = re.fullmatch(
        rf"AADSTS{code}: Because of <b>\. Trace ID: (\S+) Correlation ID: (\S+) Timestamp: (.*)",
        said["error_description"],
    )
    assert found
    assert found.groups() == (said["trace_id"], said["correlation_id"], said["timestamp"])
    assert refresh(idp, "1.x").json()["error_codes"] == [50173], "the next one is judged rightly"


def test_a_planted_refusal_of_the_sign_in_page_comes_back_to_the_program(idp: Provider) -> None:
    idp.fail(Refused(90094), at=(AUTHORIZE,))
    fields = at_browser(idp).fields
    assert (fields["error"], fields["state"]) == ("access_denied", "st&te")
    assert re.match(r"AADSTS90094: .* Trace ID: \S+ Correlation ID: \S+ Timestamp: \d", fields["error_description"])


def test_what_microsoft_keeps_to_itself_stays_on_its_page(idp: Provider) -> None:
    idp.fail(Refused(50105), at=(AUTHORIZE,))
    with pytest.raises(browser.SignInPage, match=r"AADSTS50105: .* Correlation ID: "):
        at_browser(idp)


def test_tokens_may_end_as_they_are_issued(idp: Provider) -> None:
    idp.issue_for(0)
    answer = signed_in(idp)
    assert answer["expires_in"] == 0
    assert idp.user_of(answer["access_token"]) is None
    idp.issue_for(3600)
    assert idp.user_of(refresh(idp, answer["refresh_token"]).json()["access_token"]) == ALICE


def test_a_total_outage_and_the_return_on_the_same_port(idp: Provider) -> None:
    token = signed_in(idp)["refresh_token"]
    idp.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    discovery = f"{idp.authority}/v2.0/.well-known/openid-configuration"
    assert requests.get(discovery, verify=str(idp.ca_file), timeout=20).status_code == 503
    idp.stop()
    with pytest.raises(requests.ConnectionError):
        refresh(idp, token)
    idp.heal()
    idp.start()
    assert refresh(idp, token).status_code == 200


def test_requests_are_counted(idp: Provider) -> None:
    refresh(idp, signed_in(idp)["refresh_token"])
    assert idp.requests == [("authorize", ""), ("token", "authorization_code"), ("token", "refresh_token")]


def test_the_correlation_id_of_the_client_is_kept(idp: Provider) -> None:
    mine = "0f0f0f0f-0000-4000-8000-000000000000"
    address = f"{idp.authority}/oauth2/v2.0/token"
    answer = requests.post(address, headers={"client-request-id": mine}, verify=str(idp.ca_file), timeout=20)
    assert answer.json()["correlation_id"] == mine
    assert mine in answer.json()["error_description"]


# msal itself


def application(idp: Provider, **authority: str) -> Any:
    return msal.PublicClientApplication(
        PUBLIC,
        verify=str(idp.ca_file),
        instance_discovery=False,
        timeout=20,
        **(authority or {"authority": idp.authority}),
    )


@pytest.mark.filterwarnings("ignore:response_mode")  # msal's advice against query, which `--paste` needs
@pytest.mark.parametrize("mode", ["query", "form_post"])
def test_msal_signs_in_and_refreshes(idp: Provider, mode: str) -> None:
    app = application(idp)
    flow = app.initiate_auth_code_flow(
        list(EXCHANGE_SCOPES), redirect_uri="http://localhost:5000", response_mode=mode, login_hint=ALICE
    )
    result = app.acquire_token_by_auth_code_flow(flow, browser.sign_in(flow["auth_uri"], idp.ca_file).fields)
    assert idp.user_of(result["access_token"]) == ALICE
    (account,) = app.get_accounts()
    assert account["username"] == ALICE
    assert account["home_account_id"].endswith(f".{TENANT}")
    cached = app.acquire_token_silent_with_error(list(EXCHANGE_SCOPES), account)
    assert cached["token_source"] == "cache"
    fresh = app.acquire_token_silent_with_error(list(EXCHANGE_SCOPES), account, force_refresh=True)
    assert fresh["token_source"] == "identity_provider"
    assert idp.user_of(fresh["access_token"]) == ALICE


def test_msal_by_device_code(idp: Provider, clock: Clock) -> None:
    app = application(idp)
    flow = app.initiate_device_flow(list(EXCHANGE_SCOPES))
    once = {"exit_condition": lambda _: True}
    assert app.acquire_token_by_device_flow(flow, **once)["error"] == "authorization_pending"
    idp.approve_device(flow["user_code"], ALICE)
    clock.now += flow["interval"]
    flow["latest_attempt_at"] = 0.0  # msal looks at its own clock
    assert idp.user_of(app.acquire_token_by_device_flow(flow, **once)["access_token"]) == ALICE


@pytest.mark.parametrize("tenant", [TENANT, "organizations", "contoso.com"])
def test_msal_takes_both_forms_of_authority(idp: Provider, tenant: str) -> None:
    entra = application(idp, authority=f"{idp.base}/{tenant}")
    oidc = application(idp, oidc_authority=f"{idp.base}/{tenant}")
    expected = f"{idp.base}/{tenant}/oauth2/v2.0/token"
    assert entra.authority.token_endpoint == oidc.authority.token_endpoint == expected


def test_msal_refuses_an_unknown_tenant(idp: Provider) -> None:
    with pytest.raises(ValueError, match="Unable to get authority configuration"):
        application(idp, authority=f"{idp.base}/nowhere.example")


def test_msal_with_a_certificate(idp: Provider, certificate: Path, key: rsa.RSAPrivateKey) -> None:
    idp.add_app(DAEMON, public=False, certificate=certificate, app_only=True, may_open=("sales@contoso.com",))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    app = msal.ConfidentialClientApplication(
        DAEMON,
        authority=idp.authority,
        client_credential={"private_key": private, "public_certificate": certificate.read_text()},
        verify=str(idp.ca_file),
        instance_discovery=False,
        timeout=20,
    )
    token = app.acquire_token_for_client([APP_SCOPE])["access_token"]
    assert idp.user_of(token) == "sales@contoso.com"
