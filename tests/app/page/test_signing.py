"""Signing in on the page, against the stand-in sign-in service: signing.py, and the way back (returning.py)."""

from __future__ import annotations

import html
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from proxy.demo import browser
from proxy.demo.identity import IdentityProvider
from tests.app.home import ALICE
from tests.app.page.visitor import Reply, Served, Visitor

PAGE = "/accounts/alice%40contoso.com"
DESKS = "/accounts/desk%40contoso.com"
BOB = "bob@contoso.com"


def address(page: Reply) -> str:
    """Where this page leads at once."""
    assert page.status == 200, page.words
    seconds, _, to = page.header("refresh").partition("; url=")
    assert seconds == "0"
    assert to in html.unescape(page.text), "the link is there as well"
    return to


def redirected(identity: IdentityProvider, to: str) -> str:
    """Where Microsoft's stand-in sends the browser back to."""
    return browser.sign_in(to, identity.ca_file).address


def come_back(visitor: Visitor, back: str) -> Reply:
    """The browser follows the redirect from another site: without the cookie."""
    stranger = Visitor(visitor.port)
    return stranger.ask(
        "GET", back.removeprefix(f"http://localhost:{visitor.port}"), headers={"Sec-Fetch-Site": "cross-site"}
    )


def test_this_browser_signs_in(resident: Visitor, identity: IdentityProvider, served_furnished: Served) -> None:
    assert "Sign in as alice@contoso.com" in resident.get(f"{PAGE}/sign-in").words
    to = address(resident.post(f"{PAGE}/sign-in"))
    asked = dict(parse_qsl(urlsplit(to).query))
    assert asked["redirect_uri"] == f"http://localhost:{served_furnished.port}"
    assert asked["code_challenge_method"] == "S256"
    assert asked["login_hint"] == ALICE
    assert "signing in" in resident.get(PAGE).words
    assert resident.get("/accounts").header("refresh") == "3"
    back = redirected(identity, to)
    page = come_back(resident, back)
    assert page.status == 200
    assert f"Microsoft has signed you in as {ALICE}" in page.words
    assert page.header("refresh") == f"0; url=http://localhost:{resident.port}{PAGE}"
    assert page.header("referrer-policy") == "no-referrer"
    assert "connecting" in resident.get(PAGE).words
    again = come_back(resident, back)
    assert again.status == 410, "a return works once"


def test_microsoft_may_answer_with_a_form(resident: Visitor, identity: IdentityProvider) -> None:
    back = redirected(identity, address(resident.post(f"{PAGE}/sign-in")))
    stranger = Visitor(resident.port)
    headers = {"Origin": "https://login.microsoftonline.com", "Sec-Fetch-Site": "cross-site"}
    page = stranger.ask("POST", "/", body=urlsplit(back).query, headers=headers)
    assert f"Microsoft has signed you in as {ALICE}" in page.words


def test_several_sign_ins_do_not_mix(resident: Visitor, identity: IdentityProvider) -> None:
    first, second = (address(resident.post(f"{PAGE}/sign-in")) for _ in range(2))
    back = {"first": redirected(identity, first), "second": redirected(identity, second)}
    states = [dict(parse_qsl(urlsplit(each).query))["state"] for each in back.values()]
    assert len(set(states)) == 2
    crossed = dict(parse_qsl(urlsplit(back["first"]).query)) | {"state": states[1]}
    assert "Not signed in" in come_back(resident, f"/?{urlencode(crossed)}").words
    assert "Microsoft has signed you in" in come_back(resident, back["first"]).words


def test_another_person_signed_in(resident: Visitor, identity: IdentityProvider) -> None:
    identity.add_person(BOB)
    to = address(resident.post(f"{PAGE}/sign-in"))
    identity.sign_in_as(BOB)
    page = come_back(resident, redirected(identity, to))
    assert "Not signed in" in page.words
    assert f"You signed in to Microsoft as {BOB}, but the account is for {ALICE}" in page.words
    assert page.header("refresh") == "", "what went wrong stays"


def test_consent_denied(resident: Visitor) -> None:
    to = address(resident.post(f"{PAGE}/sign-in"))
    state = dict(parse_qsl(urlsplit(to).query))["state"]
    said = {
        "error": "access_denied",
        "error_description": "AADSTS65004: User declined to consent. Trace ID: 1 "
        "Correlation ID: 11111111-2222-4333-8444-555555555555 Timestamp: 2026-11-30 12:00:00Z",
        "state": state,
    }
    page = come_back(resident, f"/?{urlencode(said)}")
    assert "Not signed in" in page.words
    assert "11111111-2222-4333-8444-555555555555" in page.words
    assert "2026-11-30 12:00:00Z" in page.words
    assert f"http://localhost:{resident.port}{PAGE}" in page.text


def test_a_state_that_is_not_ours(resident: Visitor) -> None:
    page = come_back(resident, "/?code=x&state=y")
    assert page.status == 410
    assert "This sign-in is over" in page.words


def test_a_device_code(resident: Visitor, identity: IdentityProvider, served_furnished: Served) -> None:
    page = resident.submit(f"{PAGE}/sign-in/device")
    code = re.search(r'<p class="user-code">([^<]+)</p>', page.text)
    assert code is not None
    assert f"{identity.base}/devicelogin" in page.text
    assert page.header("refresh") == "3"
    identity.approve_device(code[1], ALICE)
    desk = served_furnished.beside.desk
    (id,) = desk._devices
    served_furnished.turning.call(lambda: desk._devices[id].result())
    done = resident.get(f"{PAGE}/sign-in/device/{id}")
    assert done.header("location") == PAGE
    assert f"Signed in as {ALICE}." in resident.get(PAGE).words
    over = resident.get(f"{PAGE}/sign-in/device/{id}")
    assert "This sign-in is over" in over.words


def test_a_pasted_address(resident: Visitor, identity: IdentityProvider) -> None:
    page = resident.submit(f"{PAGE}/sign-in/paste")
    found = re.search(r"<pre[^>]*><code>([^<]+)</code>", page.text)
    assert found is not None
    wrong = resident.post(f"{PAGE}/sign-in/paste/finish", {"address": "https://example.com/"})
    assert wrong.status == 422
    assert "This holds no answer of Microsoft" in wrong.words
    back = redirected(identity, html.unescape(found[1]))
    done = resident.submit(f"{PAGE}/sign-in/paste/finish", {"address": f"  {back} \r\n"})
    assert f"Signed in as {ALICE}." in done.words
    assert "That sign-in is over" in resident.get(f"{PAGE}/sign-in/paste").words


def test_signing_out(resident: Visitor, identity: IdentityProvider) -> None:
    come_back(resident, redirected(identity, address(resident.post(f"{PAGE}/sign-in"))))
    assert "Signed out" in resident.submit(f"{PAGE}/sign-out").words
    assert "Somebody must sign in" in resident.get(PAGE).words


def test_an_app_signs_in_by_itself(resident: Visitor) -> None:
    assert "signs in by itself" in resident.get(f"{DESKS}/sign-in").words
    assert "Microsoft gave it a token just now" in resident.submit(f"{DESKS}/sign-in").words


def test_a_disabled_app(resident: Visitor) -> None:
    resident.submit("/apps/work/disable")
    assert "is disabled" in resident.get(f"{PAGE}/sign-in").words
    for way in ("", "/device", "/paste"):
        assert "switched off" in resident.post(f"{PAGE}/sign-in{way}").words


def test_an_app_whose_redirect_address_is_elsewhere(resident: Visitor) -> None:
    form = {"application_id": "11111111-1111-4111-8111-111111111111", "account_types": "organizations"}
    resident.submit("/apps/work", {**form, "redirect_uri": "https://mail.contoso.com/back"})
    page = resident.get(f"{PAGE}/sign-in")
    assert "In this browser" not in page.words
    assert "cannot be sent back here" in page.words
    assert resident.post(f"{PAGE}/sign-in").status == 409


@pytest.mark.parametrize("registered", ["http://localhost/back", "http://localhost:5000/back"])
def test_the_registered_path_counts(registered: str, resident: Visitor, served_furnished: Served) -> None:
    returns = served_furnished.page._factory.site._works.returns
    assert returns.address(registered) == f"http://localhost:{served_furnished.port}/back"
