"""From an empty state folder to mail that goes round, as a person goes: everything by clicks and keys in Chromium.

Behind the page: the daemon as a child process, the stand-in sign-in service with pages of its own, real Dovecot and
Postfix. It ends with a real curl that reads and sends through the account that the browser made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.browser.berth import FerryWithPage, trusted
from tests.browser.consent import consent_asked
from tests.browser.inspection import take_pictures
from tests.browser.webdriver import Browser
from tests.end_to_end.programs import Curl, Security
from tests.servers.mailhost import MailHost, Person

pytestmark = pytest.mark.timeout(300)  # twenty pages with their pictures, and everything behind them
MESSAGE = b"From: Bob <bob@contoso.com>\r\nTo: you\r\nSubject: Ahoy\r\n\r\nThe ferry is here.\r\n"


@pytest.fixture
def ferry(mail_host: MailHost, tmp_path: Path) -> Iterator[FerryWithPage]:
    """Its application is registered at the sign-in service; here nobody knows of it."""
    with closing(FerryWithPage(tmp_path, mail_host)) as ferry:
        mail_host.identity.add_app(ferry.application_id)
        yield ferry


@pytest.fixture(params=[True, False], ids=["with-scripts", "without-scripts"])
def browser(request: pytest.FixtureRequest, mail_host: MailHost) -> Iterator[Browser]:
    with Browser(trusts=(trusted(mail_host.certificate.file),), scripts=request.param) as browser:
        yield browser


@pytest.fixture
def microsoft(mail_host: MailHost) -> Iterator[str]:
    """Where the sign-in service's own pages are."""
    with consent_asked(mail_host.identity, mail_host.certificate) as base:
        yield base


def test_from_nothing_to_mail(ferry: FerryWithPage, browser: Browser, microsoft: str) -> None:
    host, person = ferry.host, ferry.host.new_person()
    assert not ferry.state_dir.exists()
    ferry.serve()
    journey = Journey(ferry, browser, person)

    journey.arrive()
    journey.learn_to_register()
    journey.enter_app()
    journey.add_account()
    journey.sign_in(microsoft)
    journey.see_it_connected()
    journey.take_settings()

    program = Curl(ferry, person.upn, ferry.passwords[person.upn])
    host.deliver(person, MESSAGE)
    read = program.read("imap", Security.PLAIN)
    assert read.exit_code == 0, read.errors
    assert b"The ferry is here." in read.output
    sent = program.send(Security.STARTTLS, person.upn, MESSAGE.replace(b"Ahoy", b"And back"))
    assert sent.exit_code == 0, sent.errors
    assert b"Subject: And back" in host.delivered(person, 2)[-1]

    browser.open(f"{ferry.page}/")
    journey.picture("all-done")
    assert len(browser.find_all(".step.done")) == len(browser.find_all(".step"))


class Journey:
    """One person's way through the page; each step begins where the one before it has led to."""

    def __init__(self, ferry: FerryWithPage, browser: Browser, person: Person) -> None:
        self._ferry = ferry
        self._browser = browser
        self._person = person
        self._pictures = 0

    def picture(self, name: str) -> None:
        self._pictures += 1
        if self._browser.scripts:  # without, the pages look the same but for the copy buttons
            take_pictures(self._browser, f"journey-{self._pictures:02}-{name}")

    def arrive(self) -> None:
        link = self._ferry.new_link()
        self._browser.open(link)
        assert self._browser.path == "/"
        self._browser.read("Register an app at Microsoft")
        assert not self._browser.has(".step.done")
        assert self._browser.find(".step.now").text.startswith("Register")
        self.picture("welcome")
        self._browser.open(link)
        self._browser.read("This link is used up")
        self.picture("link-used-up")
        self._browser.open(self._ferry.page)
        assert self._browser.path == "/"  # the session goes on

    def learn_to_register(self) -> None:
        self._browser.click("Show me how")
        for words in ("Supported account types", "http://localhost", "IMAP.AccessAsUser.All", "Value", "November 2025"):
            self._browser.read(words)
        self.picture("guide")
        self._browser.click("Enter the app")

    def enter_app(self) -> None:
        browser, identity = self._browser, self._ferry.host.identity
        browser.fill(name="work", application_id="the Object ID, by mistake")
        browser.click("Enter and enable")
        browser.read("Nothing was changed.")
        self.picture("app-refused")
        browser.fill(application_id=self._ferry.application_id)
        browser.choose("account_types", "organizations")
        browser.click("Rarely needed")
        browser.fill(authority=identity.authority, ca_file=str(identity.ca_file))
        self.picture("app")
        browser.click("Enter and enable")
        browser.read("App work is entered and enabled")
        self.picture("app-entered")

    def add_account(self) -> None:
        browser, login = self._browser, self._person.upn
        browser.click("Add an account")
        browser.fill(login=login)
        self.picture("account")
        browser.click("Add the account")
        self._ferry.passwords[login] = browser.find(".secret").text
        self.picture("account-added")
        browser.open(f"{self._ferry.page}/accounts/{login}")
        assert not browser.has(".secret"), "a password is shown once"
        assert browser.find("h1 .badge").text == "sign in needed"

    def sign_in(self, microsoft: str) -> None:
        browser, login = self._browser, self._person.upn
        browser.click("Sign in with Microsoft")
        self.picture("sign-in")
        browser.find("main form button").click()
        browser.read("Permissions requested")
        assert browser.address.startswith(microsoft)
        assert browser.find("[name=upn]").attribute("value") == login, "the login hint"
        browser.click("Accept")
        browser.wait_for("back on the account's page", lambda: browser.path.startswith("/accounts/"))
        assert browser.find("h1 .badge").text == "connecting"
        self.picture("signed-in")

    def see_it_connected(self) -> None:
        browser = self._browser
        browser.click("Try it")
        self.picture("doctor")
        browser.click("Begin")
        browser.read("In short")
        self.picture("doctor-done")
        browser.click("The account")
        assert browser.find("h1 .badge").text == "connected", "the doctor's login reached the mailbox"
        self.picture("connected")

    def take_settings(self) -> None:
        browser = self._browser
        browser.click("Settings for the mail program")
        self.picture("programs")
        browser.click("Outlook 2003 to 2016, and newer")
        browser.read(str(self._ferry.ports["imap"]))
        browser.read(str(self._ferry.ports["smtp"]))
        self.picture("outlook")
