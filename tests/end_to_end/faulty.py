"""A daemon with its page between a sign-in service and an Exchange in which faults are planted. Not a test.

What it is: the daemon, the person who signs in by command or page, and what is said of an account in each place. What
it is not: the faults (`faults.py`).
"""

from __future__ import annotations

import html
import http.cookiejar
import io
import json
import re
import smtplib
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit

import pytest

from proxy.app.asking import ask_daemon
from proxy.app.cli import run
from proxy.demo import browser
from proxy.demo.directory import Refused
from proxy.demo.doors import AUTHORIZE, DEVICE_CODE, DISCOVERY, TOKEN
from tests.app.home import Typist
from tests.end_to_end.exchange import Exchange
from tests.end_to_end.faults import Met
from tests.end_to_end.ferry import AUTHORIZE_ADDRESS, Told
from tests.end_to_end.refused import Said
from tests.end_to_end.stage import Mailbox, ScriptedFerry, SignInHost
from tests.servers.child import free_port, wait_until
from tests.servers.mailhost import DOMAIN

PASSWORD = "plant-a-fault-and-see"
TIMEOUT_S = 30.0

_DOORS: dict[Met, str] = {
    "page": AUTHORIZE,
    "redirect": AUTHORIZE,
    "redeem": TOKEN,
    "device": TOKEN,
    "device start": DEVICE_CODE,
    "discovery": DISCOVERY,
}


class FaultyFerry(ScriptedFerry):
    """A daemon with its page, and an account for each fault."""

    def __init__(self, folder: Path, host: SignInHost, exchange: Exchange, logins: Sequence[str]) -> None:
        self.page_port = free_port()
        self.said: dict[str, Said] = {}
        """What mail programs heard, by login."""
        self._opener: urllib.request.OpenerDirector | None = None
        self.at = ""
        """Where the browser is on the page."""
        super().__init__(folder, host, exchange, (), [Mailbox((each,), (PASSWORD,), each, each) for each in logins])
        self.passwords.update(dict.fromkeys(logins, PASSWORD))

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        document = json.loads(super().configuration(upstreams))
        return json.dumps({**document, "page": f"127.0.0.1:{self.page_port}"})

    # The person

    def sign_in_at_once(self, login: str) -> None:
        """As a page does it: without a command."""
        identity = self.host.identity
        identity.sign_in_as(login)
        begun = self.ask("begin_code", login=login, redirect_uri="http://localhost")
        fields = browser.sign_in(begun["address"], identity.ca_file).fields
        self.ask("finish_code", id=begun["id"], query=fields)

    def sign_in_meeting(self, login: str, refused: Refused, met: Met, exit_code: int = 1) -> Told:
        """`mailferry sign-in`, and the sign-in service says this no; it must end with this exit code."""
        identity, where = self.host.identity, _DOORS[met]
        identity.sign_in_as(login)
        identity.fail(refused, at=(where,))

        def person(said: str) -> str:
            """Goes to the address, and pastes where the browser ends, or what it shows."""
            address = re.search(AUTHORIZE_ADDRESS, said)
            assert address, "the command shows an address"
            try:
                return browser.sign_in(address[0], identity.ca_file).address
            except browser.SignInPage as page:
                return str(page)

        way = "--device" if met in ("device", "device start") else "--paste"
        try:
            return self.told("sign-in", login, way, types=person, exit_code=exit_code)
        finally:
            identity.heal()

    # What is said of an account

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return ask_daemon(self.state_dir, verb, arguments)

    def row(self, login: str) -> dict[str, Any]:
        """As `account list --json` has it."""
        (row,) = [row for row in self.ask("accounts")["accounts"] if row["login"] == login]
        return dict(row)

    def shown(self, login: str) -> str:
        """`mailferry account show`, each run of spaces as one."""
        return " ".join(self.told("account", "show", login).output.split())

    def told(self, *arguments: str, types: Callable[[str], str] = lambda _: "", exit_code: int = 0) -> Told:
        """What a command says that is run in this process: it has a daemon to ask, and 0.7 s of start are saved."""
        output, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch("sys.stdin", Typist(types, output)),
            mock.patch("proxy.log.start"),
            redirect_stdout(output),
            redirect_stderr(errors),
        ):
            code = run(["--config", str(self.config), *arguments])
        told = Told(code, output.getvalue(), errors.getvalue())
        assert told.exit_code == exit_code, told.errors
        return told

    def sign_in_on_page_meeting(self, login: str, refused: Refused, met: Met) -> str:
        """The same on the page: the text of the page where it ends."""
        identity, sign_in = self.host.identity, f"/accounts/{quote(login)}/sign-in"
        identity.sign_in_as(login)
        identity.fail(refused, at=(_DOORS[met],))
        try:
            match met:
                case "redirect" | "redeem":
                    page = self.send_form(sign_in, {})
                    away = re.search(r'href="(https://[^"]*/authorize\?[^"]*)"', page)
                    assert away, "the page leads to Microsoft"
                    return seen(browser.sign_in(html.unescape(away[1]), identity.ca_file).deliver())
                case "page":
                    address = re.search(AUTHORIZE_ADDRESS, seen(self.send_form(f"{sign_in}/paste", {})))
                    assert address, "the page shows an address"
                    with pytest.raises(browser.SignInPage) as stays:
                        browser.sign_in(address[0], identity.ca_file)
                    return seen(self.send_form(f"{sign_in}/paste/finish", {"address": str(stays.value)}))
                case "device":
                    before = len(self.log_lines("sign-in refused"))
                    self.send_form(f"{sign_in}/device", {})
                    wait_until("the code is refused", lambda: len(self.log_lines("sign-in refused")) > before)
                    return seen(self.fetch(self.at))
                case _:
                    return seen(self.send_form(f"{sign_in}/device" if met == "device start" else sign_in, {}))
        finally:
            identity.heal()

    def send_form(self, path: str, fields: dict[str, str]) -> str:
        """Send a form of the page, with its hidden field against forgery."""
        hidden = re.search(r'name="csrf" value="([^"]+)"', self.fetch("/apps/new"))
        assert hidden, "a form has a token against forgery"
        return self.fetch(path, {**fields, "csrf": hidden[1]})

    def fetch(self, path: str, form: dict[str, str] | None = None) -> str:
        """A page as it came, an error's too; the browser was let in by the one-time link."""
        base = f"http://localhost:{self.page_port}"
        if self._opener is None:
            link = re.search(r"http://\S+/open/\S+", self.start("page").end(0, forget=True).output)
            assert link, "`mailferry page` prints a link"
            jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
            self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), jar)
            self._opener.open(link[0], timeout=TIMEOUT_S).close()
        body = None if form is None else urlencode(form).encode()
        request = urllib.request.Request(f"{base}{path}", body, {"Origin": base})
        try:
            answer = self._opener.open(request, timeout=TIMEOUT_S)
        except HTTPError as error:
            answer = error
        with answer:
            self.at = urlsplit(answer.url).path
            return str(answer.read().decode())

    def account_page(self, login: str) -> str:
        """The account's page, as a browser shows its text."""
        return seen(self.fetch(f"/accounts/{quote(login)}"))

    # The mail program

    def send(self, login: str) -> str:
        """Send a mail; Exchange's refusal of it, as the program hears it."""
        with smtplib.SMTP("localhost", self.ports["smtp"], timeout=TIMEOUT_S) as client:
            client.login(login, PASSWORD)
            try:
                client.sendmail(login, [f"somebody@{DOMAIN}"], b"Subject: A fault\r\n\r\nA fault.\r\n")
            except smtplib.SMTPDataError as error:
                return f"{error.smtp_code} {_text(error.smtp_error)}"
        raise AssertionError("the mail was taken")


def seen(page: str) -> str:
    """What a person sees of a page: its text, in one line."""
    bare = re.sub(r"<(script|style)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(bare).split())


@contextmanager
def faulty_ferry(folder: Path, logins: Sequence[str]) -> Iterator[tuple[FaultyFerry, Exchange]]:
    """The daemon serves inside the `with`; nobody is signed in yet."""
    with ExitStack() as stack:
        host = stack.enter_context(SignInHost())
        for login in logins:
            host.identity.add_person(login)
        exchange = stack.enter_context(Exchange(host.certificate, starttls=False))
        folder.mkdir(exist_ok=True)
        ferry = FaultyFerry(folder, host, exchange, logins)
        stack.callback(ferry.close)
        ferry.serve()
        yield ferry, exchange


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply
