"""Every page in every state that a person may meet, inspected in Chromium: axe-core in light and dark, a phone's width,
the keyboard alone, console and requests (`inspection.py`). Pictures of each lie in `screenshots/`.
"""

from __future__ import annotations

import poplib
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from proxy.app.programs.clients import CLIENTS
from tests.browser.berth import FerryWithPage, trusted
from tests.browser.inspection import SCREENSHOTS, inspect
from tests.browser.webdriver import Browser
from tests.end_to_end.ferry import APP
from tests.servers.child import free_port
from tests.servers.mailhost import MailHost, Person

pytestmark = pytest.mark.timeout(300)  # the first test also makes the harbour: some twenty commands


class Harbour:
    """A page with an account in every state, and the browser that looks at it."""

    def __init__(self, ferry: FerryWithPage, browser: Browser) -> None:
        self.ferry = ferry
        self.browser = browser
        self.fresh = self._account()
        self.fresh_too = self._account()
        self.connecting = self._account()
        ferry.sign_in(self.connecting)
        self.connected = self._account()
        ferry.sign_in(self.connected)
        assert ferry.logs_in(self.connected)
        self.unreachable = self._account()
        ferry.sign_in(self.unreachable)
        self._meet_closed_port(self.unreachable)
        self.refused = self._account("--mailbox", self.connected.upn, sign_in=True)
        ferry.sign_in(self.refused)
        assert not ferry.logs_in(self.refused)
        self._app("off", "--client-secret-expires", "2031-01-31")
        self._app("old", "--client-secret-expires", "2026-01-31")
        self.disabled = self._account(app="off")
        self.expired = self._account(app="old")
        browser.open(ferry.new_link())
        self.open("/apps")
        self.button(f"/apps/{'off'}/disable")

    def open(self, path: str) -> None:
        self.browser.open(self.ferry.page + path)

    def account(self, person: Person, more: str = "") -> None:
        self.open(f"/accounts/{person.upn}{more}")

    def button(self, action: str) -> None:
        """The button of the form that goes there."""
        self.browser.find(f'form[action="{action.replace("@", "%40")}"] button').click()

    def _account(self, *more: str, app: str = APP, sign_in: bool = False) -> Person:
        """`sign_in`: the person signs in as themselves, whatever the mailbox."""
        person = self.ferry.host.new_person()
        more = ("--app", app, *more, *(("--sign-in", person.upn) if sign_in else ()))
        told = self.ferry.start("account", "add", person.upn, *more).end(0, forget=True)
        self.ferry.passwords[person.upn] = re.findall(r"^ +(\S{24})$", told.output, re.MULTILINE)[0]
        return person

    def _app(self, name: str, *more: str) -> None:
        secret = self.ferry.folder.with_name(f"{self.ferry.folder.name}-secret")  # that folder is searched for secrets
        secret.write_text("a-client-secret-of-some-length-and-no-meaning\n")
        secret.chmod(0o600)
        identity = self.ferry.host.identity
        self.ferry.run(
            *("app", "add", name, "--application-id", self.ferry.application_id, "--client-secret-file", str(secret)),
            *("--authority", identity.authority, "--ca-file", str(identity.ca_file), *more),
        )

    def _meet_closed_port(self, person: Person) -> None:
        with suppress(poplib.error_proto), closing(poplib.POP3("localhost", self.ferry.ports["pop3"])) as client:
            client.user(person.upn)
            client.pass_(self.ferry.passwords[person.upn])


@pytest.fixture(scope="module")
def browser(mail_host: MailHost) -> Iterator[Browser]:
    with Browser(trusts=(trusted(mail_host.certificate.file),)) as browser:
        yield browser


@pytest.fixture(scope="module")
def harbour(mail_host: MailHost, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    closed = f"{{host: localhost, port: {free_port()}, tls: implicit}}"
    with closing(FerryWithPage(tmp_path_factory.mktemp("ferry"), mail_host, {"pop3": closed})) as ferry:
        ferry.app_add()
        ferry.serve()
        yield Harbour(ferry, browser)


# --- how to come to each page; by its picture's name


def refused_app(at: Harbour) -> None:
    at.open("/apps/new")
    at.browser.fill(name="a b", application_id="nonsense", directory="!")
    at.browser.choose("account_types", "directory")
    at.browser.click("Enter and enable")
    at.browser.read("Nothing was changed.")


def refused_account(at: Harbour) -> None:
    at.open("/accounts/new")
    at.browser.fill(login=at.connected.upn, mailbox="shared@contoso.com")
    at.browser.click("Add the account")
    at.browser.read("Nothing was changed.")


def device_password(at: Harbour) -> None:
    at.account(at.connected, "/passwords")
    at.browser.fill(name="scanner")
    at.browser.choose("protocols", "imap")
    at.browser.choose("protocols", "pop3")
    at.browser.click("Make a password")
    at.browser.read("this once")
    at.ferry.passwords["scanner"] = at.browser.find(".secret").text


def refused_password(at: Harbour) -> None:
    at.account(at.connected, "/passwords")
    at.browser.fill(name="phone", **{"from": "everywhere"})
    at.browser.click("Make a password")
    at.browser.read("Nothing was changed.")


def device_code(at: Harbour) -> None:
    at.account(at.fresh, "/sign-in")
    at.button(f"/accounts/{at.fresh.upn}/sign-in/device")
    assert at.browser.has(".user-code")


def signing_in(at: Harbour) -> None:
    device_code(at)
    at.account(at.fresh)
    assert at.browser.find("h1 .badge").text == "signing in"


def paste(at: Harbour) -> None:
    at.account(at.fresh_too, "/sign-in")
    at.button(f"/accounts/{at.fresh_too.upn}/sign-in/paste")


def wrong_paste(at: Harbour) -> None:
    paste(at)
    at.browser.fill(address="http://localhost/")
    at.browser.click("Finish")
    at.browser.read("no answer of Microsoft")


def sign_in_cancelled(at: Harbour) -> None:
    at.ferry.host.identity.sign_in_as(at.fresh_too.upn, declines=True)
    at.account(at.fresh_too, "/sign-in")
    at.button(f"/accounts/{at.fresh_too.upn}/sign-in")
    at.browser.read("Not signed in")
    at.browser.hosts(), at.browser.complaints()  # Microsoft's among them


def wrong_person(at: Harbour) -> None:
    at.ferry.host.identity.sign_in_as(at.connected.upn)
    at.account(at.fresh_too, "/sign-in")
    at.button(f"/accounts/{at.fresh_too.upn}/sign-in")
    at.browser.read("Not signed in")
    assert at.connected.upn in at.browser.text, "it says who signed in"
    at.browser.hosts(), at.browser.complaints()


def doctor_at_work(at: Harbour) -> None:
    at.open("/doctor")
    at.browser.click("Begin")
    at.browser.read("It is at work")


def doctor_done(at: Harbour) -> None:
    at.open(f"/doctor/{at.connected.upn}")
    at.browser.click("Begin")
    at.browser.read("In short")
    assert at.browser.has(".finding.fail"), "POP3 cannot be had"
    assert at.browser.has(".finding.ok")


def used_link(at: Harbour) -> None:
    link = at.ferry.new_link()
    at.browser.open(link)
    at.browser.open(link)


def no_session(at: Harbour) -> None:
    at.browser.tool("Network.clearBrowserCookies")
    at.open("/")


def page(path: str) -> Callable[[Harbour], None]:
    return lambda at: at.open(path)


def of(who: str, more: str = "") -> Callable[[Harbour], None]:
    return lambda at: at.account(getattr(at, who), more)


PAGES: dict[str, Callable[[Harbour], None]] = {
    "journey": page("/"),
    "register": page("/register"),
    "apps": page("/apps"),
    "app-new": page("/apps/new"),
    "app-refused": refused_app,
    "app": page(f"/apps/{APP}"),
    "app-disabled": page("/apps/off"),
    "app-remove-used": page(f"/apps/{APP}/remove"),
    "accounts": page("/accounts"),
    "account-new": page("/accounts/new"),
    "account-refused": refused_account,
    "account-sign-in-needed": of("fresh_too"),
    "account-connecting": of("connecting"),
    "account-connected": of("connected"),
    "account-authentication-error": of("refused"),
    "account-connect-error": of("unreachable"),
    "account-disabled": of("disabled"),
    "account-secret-expired": of("expired"),
    "account-change": of("connected", "/change"),
    "account-remove": of("connected", "/remove"),
    "passwords": of("connected", "/passwords"),
    "password-made": device_password,
    "password-refused": refused_password,
    "sign-in": of("fresh", "/sign-in"),
    "sign-in-disabled": of("disabled", "/sign-in"),
    "sign-in-device": device_code,
    "sign-in-paste": paste,
    "sign-in-paste-wrong": wrong_paste,
    "sign-in-cancelled": sign_in_cancelled,
    "sign-in-wrong-person": wrong_person,
    "account-signing-in": signing_in,
    "programs": page("/programs"),
    "programs-of-one": of("connected", "/program"),
    **{f"program-{client.name}": of("connected", f"/program/{client.name}") for client in CLIENTS},
    "program-elsewhere": of("connected", "/program/outlook?host=mail.example.lan&tls=yes"),
    "doctor": page("/doctor"),
    "doctor-at-work": doctor_at_work,
    "doctor-account": lambda at: at.open(f"/doctor/{at.fresh.upn}"),
    "doctor-done": doctor_done,
    "administrator": page("/administrator"),
    "certificate": page("/certificate"),
    "nothing-here": page("/nowhere"),
    "link-used-up": used_link,
}


@pytest.mark.parametrize("name", PAGES)
def test_page(harbour: Harbour, name: str) -> None:
    harbour.browser.hosts(), harbour.browser.complaints()  # what was before
    PAGES[name](harbour)
    wrong = inspect(harbour.browser, name, harbour.ferry.page)
    assert not wrong, "\n".join(wrong)


def test_the_sheet_on_paper(harbour: Harbour) -> None:
    harbour.account(harbour.connected, "/program/sheet")
    with harbour.browser.on_paper():
        harbour.browser.picture(SCREENSHOTS / "program-sheet-paper.png")
        printed = harbour.browser.text
    for value in (harbour.connected.upn, *map(str, harbour.ferry.ports.values())):
        assert value in printed
    for there in ("Administrator", "Another program", "To print it", "Skip to"):
        assert there not in printed
    assert harbour.ferry.passwords[harbour.connected.upn] not in harbour.browser.run("return document.body.innerHTML")


def test_without_a_session(harbour: Harbour) -> None:
    """Last: the session is gone then."""
    no_session(harbour)
    harbour.browser.read("mailferry page")
    wrong = inspect(harbour.browser, "link-needed", harbour.ferry.page)
    assert not wrong, "\n".join(wrong)
    assert not harbour.browser.has("nav")


def test_at_first(mail_host: MailHost, browser: Browser, tmp_path: Path) -> None:
    """Before there is an app or an account."""
    with closing(FerryWithPage(tmp_path, mail_host)) as ferry:
        ferry.serve()
        browser.open(ferry.new_link())
        browser.hosts(), browser.complaints()
        wrong = []
        for path in ("/", "/apps", "/accounts", "/programs", "/doctor", "/administrator", "/certificate"):
            browser.open(ferry.page + path)
            wrong += inspect(browser, f"first-{path.strip('/') or 'journey'}", ferry.page)
        assert not wrong, "\n".join(wrong)
