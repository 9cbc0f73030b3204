"""The verbs sign-in and sign-out with the real msal, a stand-in sign-in service, and people who are played."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from proxy.app.verbs import redirect
from proxy.demo import browser, grants
from proxy.demo.doors import DISCOVERY, TOKEN
from proxy.demo.identity import Failure, IdentityProvider
from tests.app.home import ALICE, DESK, Beside, Home

BOB = "bob@contoso.com"
ADDRESS = r"https://\S+/authorize\?\S+"
TRACE = r"For an administrator: AADSTS{}, correlation id [0-9a-f-]{{36}}, time 20\d\d-\S+"
GRAPHICAL = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


@pytest.fixture(autouse=True)
def _headless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GRAPHICAL:
        monkeypatch.delenv(name, raising=False)


def person(identity: IdentityProvider, change: Callable[[str], str] = lambda address: address) -> Callable[[str], str]:
    """Opens the address that the command shows, and pastes the one it ends on."""

    def types(said: str) -> str:
        (address,) = re.findall(ADDRESS, said)
        return change(browser.sign_in(address, identity.ca_file).address) + "\n"

    return types


@pytest.fixture
def opened(identity: IdentityProvider, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the person's browser was sent to. It goes the whole way."""
    addresses: list[str] = []

    def open_it(address: str) -> bool:
        addresses.append(address)
        browser.sign_in(address, identity.ca_file).deliver()
        return True

    monkeypatch.setattr(webbrowser, "open", open_it)
    return addresses


def state(home: Home, login: str = ALICE) -> str:
    rows = json.loads(home.run("account", "list", "--json").output)
    return str(next(row["state"] for row in rows if row["login"] == login))


# --- paste


def test_paste(furnished: Home, identity: IdentityProvider) -> None:
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    assert f"Signed in as {ALICE}." in told.output
    assert f"sign in as {ALICE}" in told.output
    assert state(furnished) == "connecting"


def test_without_a_browser_paste_is_the_way(furnished: Home, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE.upper(), types=person(identity))
    assert state(furnished) == "connecting"


def test_the_query_alone_is_enough(furnished: Home, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE, "--paste", types=person(identity, lambda address: f"  {urlsplit(address).query} "))


@pytest.mark.parametrize(
    ("change", "exit_code"),
    [
        (lambda address: "", 3),
        (lambda address: "http://localhost/", 3),
        (lambda address: address.replace("code=", "kode="), 3),
        (lambda address: address.replace("state=", "state=x"), 1),
        (lambda address: re.sub(r"code=[^&]*", "code=made-up", address), 1),
    ],
    ids=["nothing", "no query", "no code", "another state", "another code"],
)
def test_what_is_pasted_wrongly_signs_nobody_in(
    change: Callable[[str], str], exit_code: int, furnished: Home, identity: IdentityProvider
) -> None:
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity, change), exit_code=exit_code)
    assert told.errors.startswith("mailferry: ")
    assert told.errors.count("\n") == 1
    assert state(furnished) == "sign_in_needed"


def test_another_person(furnished: Home, identity: IdentityProvider) -> None:
    identity.add_person(BOB)
    identity.sign_in_as(BOB)
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity), exit_code=1)
    assert BOB in told.errors
    assert ALICE in told.errors
    assert "Nothing was changed" in told.errors
    assert state(furnished) == "sign_in_needed"


def test_a_person_who_says_no(furnished: Home, identity: IdentityProvider) -> None:
    identity.sign_in_as(ALICE, declines=True)
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity), exit_code=1)
    assert told.errors.startswith("mailferry: ")
    assert re.search(TRACE.format(65004), told.errors)
    assert state(furnished) == "sign_in_needed"


ERROR_PAGE = (
    "AADSTS50011: The redirect URI 'http://localhost' specified in the request does not match. "
    "Request Id: 0a1b2c3d-0000-4000-8000-000000000001 Correlation Id: 0a1b2c3d-0000-4000-8000-000000000002 "
    "Timestamp: 2027-01-15T08:00:00Z"
)


@pytest.mark.parametrize(
    "shown",
    [
        lambda address: ERROR_PAGE,
        lambda address: "http://localhost/?" + urlencode({"error": "invalid_client", "error_description": ERROR_PAGE}),
        lambda address: address.partition("code=")[0] + urlencode({"error": "x", "error_description": ERROR_PAGE}),
    ],
    ids=["the error page", "an address with the error", "the same of this sign-in"],
)
def test_an_error_that_is_pasted_is_explained(
    shown: Callable[[str], str], furnished: Home, identity: IdentityProvider
) -> None:
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity, shown), exit_code=1)
    assert "redirect address is not registered" in told.errors
    assert re.search(TRACE.format(50011), told.errors)
    assert state(furnished) == "sign_in_needed"


def test_an_error_that_nobody_knows_is_shown_as_it_came(furnished: Home, identity: IdentityProvider) -> None:
    raw = "AADSTS99887766: The moon is in the wrong house."
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity, lambda address: raw), exit_code=1)
    assert "does not know" in told.errors
    assert raw in told.errors
    assert "https://login.microsoftonline.com/error?code=99887766" in told.errors


@pytest.mark.parametrize("at", [DISCOVERY, TOKEN])
def test_a_sign_in_service_in_trouble(at: str, furnished: Home, identity: IdentityProvider) -> None:
    identity.fail(Failure.UNAVAILABLE, at=(at,))
    told = furnished.run("sign-in", ALICE, "--paste", types=person(identity), exit_code=1)
    assert "again" in told.errors


# --- browser


def test_browser(furnished: Home, identity: IdentityProvider, opened: list[str]) -> None:
    told = furnished.run("sign-in", ALICE, "--browser")
    assert f"Signed in as {ALICE}." in told.output
    (address,) = opened
    assert address in told.output, "if no browser opens, a person can"
    (back,) = parse_qs(urlsplit(address).query)["redirect_uri"]
    assert re.fullmatch(r"http://localhost:\d+", back), "no path: the registered one has none"
    assert state(furnished) == "connecting"


@pytest.mark.parametrize("variable", GRAPHICAL)
def test_with_a_browser_it_is_the_way(
    variable: str, furnished: Home, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, ":0")
    furnished.run("sign-in", ALICE)
    assert len(opened) == 1


def test_a_refusal_in_the_browser(furnished: Home, identity: IdentityProvider, opened: list[str]) -> None:
    identity.sign_in_as(ALICE, declines=True)
    furnished.run("sign-in", ALICE, "--browser", exit_code=1)
    assert state(furnished) == "sign_in_needed"


def test_nobody_comes(furnished: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    monkeypatch.setattr(redirect, "SIGN_IN_LIMIT_S", 0.0)
    told = furnished.run("sign-in", ALICE, "--browser", exit_code=3)
    assert "Nobody signed in within ten minutes" in told.errors
    assert state(furnished) == "sign_in_needed"


@pytest.fixture
def web(home: Home) -> Home:
    """Its app's redirect address is a web server's, which this machine is not."""
    home.add_app("--redirect-uri", "https://mail.contoso.com/back", "--authority", "https://localhost:1/contoso.com")
    home.add_account()
    return home


def test_an_address_elsewhere_is_pasted(web: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert "cannot be reached" in web.run("sign-in", ALICE, exit_code=1).errors, "it went the way of paste"
    assert "use --paste" in web.run("sign-in", ALICE, "--browser", exit_code=2).errors


# --- device


def device(identity: IdentityProvider, decide: Callable[[str], None]) -> Callable[[str], None]:
    """Reads the code off the screen, once, and enters it somewhere."""
    done: list[str] = []

    def reads(said: str) -> None:
        found = re.search(r"enter the code (\S+)", said)
        if found and not done:
            done.append(found[1])
            decide(found[1])

    return reads


def test_device(furnished: Home, identity: IdentityProvider) -> None:
    reads = device(identity, lambda code: identity.approve_device(code, ALICE))
    told = furnished.run("sign-in", ALICE, "--device", reads=reads)
    assert f"{identity.base}/devicelogin" in told.output
    assert f"Signed in as {ALICE}." in told.output
    assert state(furnished) == "connecting"


def test_a_device_that_says_no(furnished: Home, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE, "--device", reads=device(identity, identity.deny_device), exit_code=1)
    assert state(furnished) == "sign_in_needed"


def test_a_device_code_that_nobody_enters(
    furnished: Home, identity: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "DEVICE_LIFETIME_S", 1)
    told = furnished.run("sign-in", ALICE, "--device", exit_code=3)
    assert "has expired" in told.errors
    assert state(furnished) == "sign_in_needed"


def test_a_device_that_a_rule_blocks(furnished: Home, identity: IdentityProvider) -> None:
    reads = device(identity, lambda code: identity.fail(Failure.MFA_NEEDED, at=(TOKEN,)))
    told = furnished.run("sign-in", ALICE, "--device", reads=reads, exit_code=1)
    assert re.search(TRACE.format(r"\d+"), told.errors)
    assert state(furnished) == "sign_in_needed"


def test_another_person_at_the_device(furnished: Home, identity: IdentityProvider) -> None:
    identity.add_person(BOB)
    reads = device(identity, lambda code: identity.approve_device(code, BOB))
    assert BOB in furnished.run("sign-in", ALICE, "--device", reads=reads, exit_code=1).errors


# --- app-only


def test_an_app_signs_in_by_itself(furnished: Home, identity: IdentityProvider) -> None:
    told = furnished.run("sign-in", DESK)
    assert told.output == "App robot signs in by itself, and Microsoft gave it a token just now.\n"
    assert state(furnished, DESK) == "connecting"


def test_an_app_that_is_refused(furnished: Home, identity: IdentityProvider) -> None:
    (furnished.folder / "secret").write_text("the~Wrong~Value~of~forty~characters~oh1\n")
    told = furnished.run("sign-in", DESK, exit_code=1)
    assert "secret" in told.errors
    assert "Wrong~Value" not in told.errors


# --- sign-out


def test_sign_out(furnished: Home, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    told = furnished.run("sign-out", ALICE)
    assert told.output == f"Signed out: the tokens of {ALICE} are forgotten here. Microsoft keeps the consent.\n"
    assert state(furnished) == "sign_in_needed"
    furnished.run("sign-out", ALICE)


def test_removing_the_account_signs_out(furnished: Home, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    furnished.run("account", "remove", ALICE)
    furnished.add_account(ALICE, "--app", "work")
    assert state(furnished) == "sign_in_needed"


def test_removing_one_of_two_that_share_the_sign_in_does_not(furnished: Home, identity: IdentityProvider) -> None:
    furnished.add_account("sales@contoso.com", "--app", "work", "--sign-in", ALICE)
    furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    furnished.run("account", "remove", "sales@contoso.com")
    assert state(furnished) == "connecting"


# --- beside a daemon


def test_beside_a_daemon(furnished: Home, beside_furnished: Beside, identity: IdentityProvider) -> None:
    furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    assert state(furnished) == "connecting"
    furnished.run("sign-in", DESK)
    reads = device(identity, lambda code: identity.approve_device(code, ALICE))
    furnished.run("sign-in", ALICE, "--device", reads=reads)
    furnished.run("sign-out", ALICE)
    assert state(furnished) == "sign_in_needed"


def test_beside_a_daemon_with_a_browser(furnished: Home, beside_furnished: Beside, opened: list[str]) -> None:
    furnished.run("sign-in", ALICE, "--browser")
    assert state(furnished) == "connecting"


def test_a_sign_in_service_that_is_gone(furnished: Home, beside_furnished: Beside, identity: IdentityProvider) -> None:
    identity.stop()
    for way in ("--paste", "--device"):
        assert "cannot be reached" in furnished.run("sign-in", ALICE, way, exit_code=1).errors
    assert "cannot be reached" in furnished.run("sign-in", DESK, exit_code=1).errors
