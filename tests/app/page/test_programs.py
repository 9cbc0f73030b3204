"""Settings for programs on the page, their files, and Thunderbird's autoconfig without a cookie."""

from __future__ import annotations

import plistlib
import re
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from proxy.app.certificates import note_shown
from proxy.app.programs.clients import CLIENTS
from tests.app.home import ALICE, DESK
from tests.app.page.visitor import Served, Visitor
from tests.app.programs.schemas import judge
from tests.app.trusted import give
from tests.clients.berth import Berth, Entry
from tests.clients.marionette import thunderbird
from tests.end_to_end.programs import Security

HERE = f"/accounts/{quote(ALICE, safe='')}/program"
LISTENERS = (
    "  - {protocol: smtp, address: localhost, port: 1587}\n  - {protocol: pop3, address: localhost, port: 1110}\n"
)
AUTOCONFIG = "/mail/config-v1.1.xml"
SCRIPTS = Path(__file__).parents[2] / "clients" / "scripts"
WELL_KNOWN = "/.well-known/autoconfig/mail/config-v1.1.xml"


@pytest.fixture
def page(served_furnished: Served) -> Visitor:
    """Of a machine with listeners of all three protocols, and an authority."""
    home, office = served_furnished.home, served_furnished.beside.office
    home.write_main(LISTENERS)
    home.file.write_text(home.file.read_text().replace("page: off", "page: 127.0.0.1:8143"))
    give(home, 0)
    served_furnished.turning.call(lambda: office.use(home.config()))
    visitor = Visitor(served_furnished.port)
    visitor.enter(served_furnished.link())
    return visitor


def test_whose_settings(page: Visitor) -> None:
    reply = page.get("/programs")
    assert ALICE in reply.words
    assert DESK in reply.words
    assert f'href="{HERE}"' in reply.text


def test_without_accounts_it_says_what_comes_first(visitor: Visitor) -> None:
    assert "There is no account yet." in visitor.get("/programs").words


def test_the_programs(page: Visitor) -> None:
    reply = page.get(HERE)
    for client in CLIENTS:
        assert f'href="{HERE}/{client.name}"' in reply.text
        assert client.title in reply.words


@pytest.mark.parametrize("name", [client.name for client in CLIENTS])
def test_each_program_and_its_files(page: Visitor, name: str) -> None:
    for query in ("", "?tls=yes", "?host=mail.lan"):
        reply = page.get(f"{HERE}/{name}{query}")
        assert reply.status == 200, reply.words
        assert "mailferry settings" not in re.sub(r"<pre.*?</pre>", "", reply.text, flags=re.DOTALL)
        for link in set(re.findall(rf'href="({re.escape(HERE)}/{name}/[^"]+)"', reply.text)):
            octets = fetch(page, link.replace("&amp;", "&"))
            assert octets.startswith(b"HTTP/1.1 200 ")
            assert b"Content-Disposition: attachment" in octets


def fetch(visitor: Visitor, path: str) -> bytes:
    """The whole answer, which may be no text."""
    cookie = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    request = f"GET {path} HTTP/1.1\r\nHost: {visitor.host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
    return visitor.raw(request.encode())


def test_the_values_are_there_and_the_files_linked(page: Visitor) -> None:
    reply = page.get(f"{HERE}/outlook")
    assert "Incoming mail server 127.0.0.1" in reply.words
    assert "Download autodiscover.xml" in reply.words
    judge(page.get(f"{HERE}/outlook/autodiscover.xml").text.encode(), "autodiscover")


def test_encryption_is_a_choice_that_the_files_keep(page: Visitor) -> None:
    reply = page.get(f"{HERE}/thunderbird?tls=yes")
    assert "Connection security STARTTLS" in reply.words
    assert 'href="/certificate"' in reply.text
    (link,) = set(re.findall(r'href="(\S+thunderbird\.xml\?tls=yes)"', reply.text))
    assert "STARTTLS" in page.get(link).text


def test_a_profile_brings_the_certificate(page: Visitor) -> None:
    reply = page.get(f"{HERE}/apple/{ALICE}.mobileconfig")
    assert reply.header("content-type") == "application/x-apple-aspen-config"
    kinds = [each["PayloadType"] for each in plistlib.loads(reply.text.encode())["PayloadContent"]]
    assert kinds == ["com.apple.mail.managed", "com.apple.security.root"]


def test_a_sheet_for_paper(page: Visitor) -> None:
    reply = page.get(f"{HERE}/sheet")
    assert "Settings for any mail program" in reply.words
    assert "use your browser's own Print" in reply.words


def test_a_changed_certificate_is_announced(page: Visitor, served_furnished: Served) -> None:
    config = served_furnished.home.config()
    note_shown(config, time.time())
    assert "changed on" not in page.get(f"{HERE}/mutt").words
    give(served_furnished.home, 1)
    note_shown(config, time.time())
    assert "The local certificate authority changed on" in page.get(f"{HERE}/mutt").words


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/accounts/nobody/program", 404),
        ("/accounts/nobody/program/mutt", 404),
        (f"{HERE}/eudora", 404),
        (f"{HERE}/mutt/nothing", 404),
        (f"{HERE}/mutt/..%2f..%2fetc%2fpasswd", 404),
        (f"{HERE}/mutt?host=a%20b", 400),
        (f"{HERE}/mutt?host=%22onclick%3D", 400),
    ],
)
def test_what_is_not_there(page: Visitor, path: str, status: int) -> None:
    assert page.get(path).status == status


def test_a_program_that_cannot_be_told_anything(resident: Visitor) -> None:
    reply = resident.get(f"{HERE}/msmtp")
    assert reply.status == 409
    assert "No listener serves SMTP" in reply.words


# --- Thunderbird asks by itself


@pytest.mark.parametrize("path", [AUTOCONFIG, WELL_KNOWN])
def test_thunderbird_needs_no_cookie(page: Visitor, path: str) -> None:
    reply = Visitor(page.port).get(f"{path}?emailaddress={quote(ALICE)}")
    assert reply.status == 200
    assert reply.header("content-type") == "text/xml; charset=utf-8"
    judge(reply.text.encode(), "autoconfig")
    root = ElementTree.fromstring(reply.text)
    assert [each.text for each in root.iter("domain")] == ["contoso.com"]
    assert {each.text for each in root.iter("username")} == {"%EMAILADDRESS%"}
    assert {each.text for each in root.iter("port")} == {"1143", "1110", "1587"}


def test_nobody_learns_whether_an_address_exists(page: Visitor) -> None:
    there, absent = (
        Visitor(page.port).get(f"{AUTOCONFIG}?emailaddress={name}@contoso.com") for name in ("alice", "nobody")
    )
    assert there.text == absent.text
    assert "alice" not in there.text


@pytest.mark.parametrize(
    ("query", "domain"),
    [
        ("", "mail.invalid"),
        ("?emailaddress=contoso.com", "contoso.com"),
        ("?emailaddress=x@CONTOSO.com", "contoso.com"),
        ("?emailaddress=x@%3Cscript%3E", "mail.invalid"),
        ("?emailaddress=x@%22%26", "mail.invalid"),
        (f"?emailaddress=x@{'a' * 300}", "mail.invalid"),
    ],
)
def test_whatever_is_asked_the_answer_is_sound(page: Visitor, query: str, domain: str) -> None:
    reply = Visitor(page.port).get(f"{AUTOCONFIG}{query}")
    judge(reply.text.encode(), "autoconfig")
    assert f"<domain>{domain}</domain>" in reply.text


def test_another_host_gets_nothing(page: Visitor) -> None:
    reply = Visitor(page.port, host="autoconfig.contoso.com").get(AUTOCONFIG)
    assert reply.status >= 400
    assert "clientConfig" not in reply.text


def test_thunderbird_itself_reads_it_by_the_preference_that_the_steps_name(page: Visitor, tmp_path: Path) -> None:
    told = page.get(f"{HERE}/thunderbird").words
    preference = re.search(r"mailnews\.auto_config_url (http://127\.0\.0\.1:)(\d+)(/\S+)", told)
    assert preference is not None
    address = f"{preference[1]}{page.port}{preference[3]}"  # the test's page is on a port of its own
    entry = Entry("thunderbird", "thunderbird", "imap", "", "", tuple(Security))
    berth = Berth(entry, Security.PLAIN, cast("Any", None), cast("Any", None), cast("Any", None), tmp_path, "")
    with thunderbird(berth) as marionette:
        servers = marionette.run((SCRIPTS / "autoconfig.js").read_text(), address, "", "contoso.com")
    assert [(each["type"], each["port"]) for each in servers] == [("imap", 1143), ("pop3", 1110), ("smtp", 1587)]
    assert {(each["hostname"], each["security"], each["username"]) for each in servers} == {
        ("127.0.0.1", "plain", "%EMAILADDRESS%")
    }


def test_the_other_pages_need_a_cookie(page: Visitor) -> None:
    stranger = Visitor(page.port)
    for path in ("/programs", HERE, f"{HERE}/mutt", f"{HERE}/apple/{ALICE}.mobileconfig"):
        reply = stranger.get(path)
        assert reply.status == 403
        assert ALICE not in reply.text
