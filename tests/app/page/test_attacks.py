"""Attacks on the page, over real sockets: site.py, service.py and the guard at work (issue 5, "Security of the page").

Each takes an innocent request that is answered, and the same one with the attack in it, which is not.
"""

from __future__ import annotations

import re
import socket
from typing import Any, cast
from urllib.parse import quote, urlsplit

import pytest
from twisted.internet.task import deferLater

from proxy.app.page import guard as guards
from proxy.app.page import service
from proxy.app.page.wire import MAX_BODY_OCTETS
from proxy.login import Fault, LoginRefused, Refusal
from tests.app.home import ALICE, APPLICATION_ID, PATIENCE_S, SECRET
from tests.app.page.visitor import Served, Visitor

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
APP = {
    "name": "work",
    "application_id": APPLICATION_ID,
    "account_types": "common",
    "flow": "delegated",
    "cloud": "global",
}
STRICT = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
PAGES = ("/", "/register", "/apps", "/apps/new", "/apps/work", "/apps/work/remove", "/accounts", "/accounts/new")
ALICES = ("", "/change", "/remove", "/passwords", "/sign-in")


def unchanged(served: Served) -> bool:
    return served.home.config().apps == {}


# --- who comes from where


@pytest.mark.parametrize("path", ["/", "/health", "/static/mailferry.css", "/open/x"])
def test_dns_rebinding(path: str, served: Served) -> None:
    """A site whose name was made to lead here has its own name in the Host header."""
    evil = Visitor(served.port, host=f"evil.example:{served.port}")
    reply = evil.ask("GET", path)
    assert reply.status == 403
    assert "Not this page's address" in reply.words
    assert "Host" not in reply.text, "it is told nothing of what is here"


def test_dns_rebinding_with_a_cookie(visitor: Visitor, served: Served) -> None:
    visitor.host = f"evil.example:{served.port}"
    assert visitor.get("/").status == 403
    assert visitor.post("/apps/new", APP, Origin=f"http://localhost:{served.port}").status == 403
    assert unchanged(served)


def test_dns_rebinding_does_not_use_up_a_link(served: Served) -> None:
    link = served.link()
    evil = Visitor(served.port, host=f"evil.example:{served.port}")
    assert evil.ask("GET", urlsplit(link).path).status == 403
    Visitor(served.port).enter(link)


def test_without_a_cookie_nothing_is_shown_or_changed(resident: Visitor) -> None:
    stranger = Visitor(resident.port)
    for path in (*PAGES, *(f"/accounts/alice%40contoso.com{more}" for more in ALICES), "/nothing"):
        reply = stranger.ask("GET", path)
        assert (path, reply.status) == (path, 403)
        assert ALICE not in reply.text
    stranger.csrf = resident.csrf
    assert stranger.post("/apps/work/disable").status == 403


def test_a_guessed_cookie(served: Served) -> None:
    stranger = Visitor(served.port)
    stranger.cookies[f"mailferry-{served.port}"] = "guess"
    assert stranger.ask("GET", "/").status == 403


@pytest.mark.parametrize("csrf", ["", "wrong", None])
def test_csrf_without_the_token(csrf: str | None, visitor: Visitor, served: Served) -> None:
    right = visitor.csrf
    visitor.csrf = csrf or ""
    assert visitor.post("/apps/new", APP).status == 403
    assert unchanged(served)
    visitor.csrf = right
    assert visitor.post("/apps/new", APP).status == 303


def test_csrf_with_another_session_s_token(visitor: Visitor, served: Served) -> None:
    other = Visitor(served.port)
    other.enter(served.link())
    visitor.csrf = other.csrf
    assert visitor.post("/apps/new", APP).status == 403
    assert unchanged(served)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_csrf_from_another_origin(headers: dict[str, str], visitor: Visitor, served: Served) -> None:
    """Even with the token, and with a browser that sends the cookie all the same."""
    assert visitor.post("/apps/new", APP, **headers).status == 403
    assert unchanged(served)


def test_csrf_by_a_form_that_is_none(visitor: Visitor, served: Served) -> None:
    """`text/plain` and JSON can be sent by other sites without asking first."""
    assert visitor.post("/apps/new", APP, **{"Content-Type": "text/plain"}).status == 415
    assert unchanged(served)


def test_a_change_is_never_a_get(visitor: Visitor, served: Served) -> None:
    visitor.submit("/apps/new", APP)
    for path in ("/apps/work/disable", "/apps/work/enable"):
        assert visitor.get(f"{path}?csrf={visitor.csrf}").status == 405
    assert served.home.config().apps["work"].enabled


# --- the link


def test_a_link_is_used_once(served: Served) -> None:
    link = served.link()
    Visitor(served.port).enter(link)
    thief = Visitor(served.port)
    reply = thief.ask("GET", urlsplit(link).path)
    assert reply.status == 403
    assert "This link is used up" in reply.words
    assert thief.cookies == {}


def test_a_link_grows_old(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "LINK_LIFE_S", 0)
    assert Visitor(served.port).ask("GET", urlsplit(served.link()).path).status == 403


def test_a_browser_that_loads_ahead_does_not_use_a_link_up(served: Served) -> None:
    link = served.link()
    visitor = Visitor(served.port)
    assert visitor.ask("HEAD", urlsplit(link).path).status == 405
    assert visitor.ask("GET", urlsplit(link).path, headers={"Sec-Purpose": "prefetch"}).status == 405
    visitor.enter(link)


def test_the_cookie_s_flags(served: Served) -> None:
    reply = Visitor(served.port).ask("GET", urlsplit(served.link()).path)
    flags = reply.header("set-cookie").split("; ")[1:]
    assert sorted(flags) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert reply.header("location") == "/"
    assert reply.header("referrer-policy") == "no-referrer"


def test_after_a_click_on_another_site_the_browser_is_asked_again(visitor: Visitor, served: Served) -> None:
    """It holds a strict cookie back once; what it may not do is to follow such a click into a change."""
    stranger = Visitor(served.port)
    reply = stranger.ask("GET", "/apps?x=1", headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.status == 200
    assert reply.header("refresh") == "0; url=/apps"
    assert "There is none yet" not in reply.words
    assert stranger.ask("GET", "/apps", headers={"Sec-Fetch-Site": "same-origin"}).status == 403, "no loop"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_look_by_the_visitor_s_cookie(site: str, resident: Visitor) -> None:
    """Another port of this machine is the same site: the browser sends it the cookie, and to us from there."""
    assert ALICE in resident.get("/accounts").text
    reply = resident.get("/accounts", **{"Sec-Fetch-Site": site})
    assert ALICE not in reply.text
    assert reply.header("refresh") == "0; url=/accounts"


# --- what is written into fields comes out as text


def test_scripts_in_an_app_s_fields(visitor: Visitor) -> None:
    for name in (
        "name",
        "application_id",
        "directory",
        "client_secret_expires",
        "redirect_uri",
        "authority",
        "ca_file",
    ):
        page = visitor.post("/apps/new", {**APP, "account_types": "directory", name: SCRIPT})
        assert page.status == 422, name
        assert "<script>alert" not in page.text, name
        assert "<img src=x" not in page.text, name
        assert "49" not in re.findall(r'value="([^"]*)"', page.text), name
        assert "{{7*7}}" in page.words or "{{7*7}}" in page.text, name


def test_scripts_in_an_account_s_fields(resident: Visitor) -> None:
    for name in ("login", "mailbox", "sign_in", "app"):
        page = resident.post("/accounts/new", {"login": "x", "app": "work", "protocols": "imap", name: SCRIPT})
        assert page.status == 422, name
        assert "<script>alert" not in page.text, name
        assert "<img src=x" not in page.text, name


def test_a_script_as_a_login(resident: Visitor) -> None:
    """A login may be any text; it is shown on every page of its account."""
    form = {"login": SCRIPT, "app": "work", "mailbox": "x@contoso.com", "protocols": "imap"}
    page = resident.submit("/accounts/new", form)
    assert page.status == 200, page.words
    at = f"/accounts/{quote(SCRIPT, safe='')}"
    for path in ("/", "/accounts", *(f"{at}{more}" for more in ALICES)):
        shown = resident.get(path)
        assert (path, shown.status) == (path, 200)
        assert "<script>alert" not in shown.text
        assert "<img src=x" not in shown.text
    assert resident.submit(f"{at}/passwords", {"name": SCRIPT, "protocols": "imap"}).text.count("<script>alert") == 0
    assert "<script>alert" not in resident.submit(f"{at}/remove").text


def test_scripts_in_a_path(visitor: Visitor) -> None:
    for path in ("/apps/", "/accounts/", "/nothing/"):
        page = visitor.get(f"{path}{quote(SCRIPT, safe='')}")
        assert page.status == 404
        assert "<script>alert" not in page.text


def test_scripts_in_what_exchange_says(resident: Visitor, served_furnished: Served) -> None:
    states, account = served_furnished.beside.office.states, served_furnished.home.config().account(ALICE)
    assert account is not None
    refused = LoginRefused(Refusal.REFUSED_UPSTREAM, SCRIPT, fault=Fault.EXCHANGE, cause=SCRIPT, remedy=SCRIPT)
    served_furnished.turning.call(lambda: states.login_failed(account, refused))
    for path in ("/accounts", "/accounts/alice%40contoso.com"):
        page = resident.get(path)
        assert "{{7*7}}" in page.words
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text


def test_scripts_in_what_microsoft_says(resident: Visitor) -> None:
    """Anybody may write the address of a return."""
    to = resident.post("/accounts/alice%40contoso.com/sign-in").header("refresh")
    state = re.search(r"[?&]state=([^&]+)", to)
    assert state is not None
    query = f"error={quote(SCRIPT)}&error_description={quote(SCRIPT)}&state={state[1]}"
    page = Visitor(resident.port).ask("GET", f"/?{query}")
    assert "Not signed in" in page.words
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text


def test_no_page_has_a_script_or_a_style_of_its_own(resident: Visitor) -> None:
    for path in (*PAGES, *(f"/accounts/alice%40contoso.com{more}" for more in ALICES)):
        page = resident.get(path)
        assert (path, page.status) == (path, 200)
        assert re.findall(r"<script(?![^>]*\bsrc=\"/static/)", page.text) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page.text) == []


# --- secrets


def test_no_secret_is_ever_sent_back(resident: Visitor, served_furnished: Served) -> None:
    robot = {**APP, "account_types": "contoso.com", "client_secret": SECRET[::-1], "flow": "app_only"}
    resident.submit("/apps/new", {**robot, "name": "other"})
    hashes = [local.hash for account in served_furnished.home.config().accounts for local in account.passwords]
    for path in (*PAGES, "/apps/robot", "/apps/other", *(f"/accounts/alice%40contoso.com{more}" for more in ALICES)):
        text = resident.get(path).text
        assert SECRET not in text
        assert SECRET[::-1] not in text
        assert not any(each in text for each in hashes)
        assert "$scrypt$" not in text


# --- paths and headers


@pytest.mark.parametrize(
    "target",
    [
        "/static/../site.py",
        "/static/%2e%2e/site.py",
        "/static/..%2fsite.py",
        "/static/%2e%2e%2fsite.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/mailferry.css%00.txt",
        "/static/",
        "/static",
        "/static/..\\site.py",
        "/static/%5c..%5csite.py",
        "//evil.example/",
        "http://evil.example/static/mailferry.css",
    ],
)
def test_path_games(target: str, visitor: Visitor) -> None:
    assert visitor.get("/static/mailferry.css").status == 200
    reply = visitor.ask("GET", target)
    assert reply.status in (400, 404)
    assert "import" not in reply.text
    assert "root:" not in reply.text


def test_headers_cannot_be_written_into(visitor: Visitor, served: Served) -> None:
    for target in ("/open/x%0d%0aSet-Cookie:%20a=b", "/apps/x%0d%0aSet-Cookie:%20a=b"):
        reply = visitor.ask("GET", target)
        assert reply.status == 400
        assert visitor.cookies.keys() == {f"mailferry-{served.port}"}
    stranger = Visitor(served.port)
    reply = stranger.ask("GET", "/a%E2%80%A8b", headers={"Sec-Fetch-Site": "cross-site"})
    assert reply.header("refresh") == "0; url=/a%E2%80%A8b"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
def test_other_methods(method: str, visitor: Visitor) -> None:
    reply = visitor.ask(method, "/")
    assert reply.status == 405
    assert reply.header("allow") == "GET, HEAD, POST"


def test_every_answer_is_strict(visitor: Visitor) -> None:
    for path in ("/", "/nothing", "/static/mailferry.css", "/static/x", "/health", "/open/x", "/%ff"):
        reply = visitor.ask("GET", path)
        for name, value in STRICT.items():
            assert (path, reply.header(name)) == (path, value)
        assert "default-src 'none'" in reply.header("content-security-policy")
        assert reply.header("server") == ""
        assert reply.header("connection") == "close"


def test_head_has_no_body(visitor: Visitor) -> None:
    assert len(visitor.get("/apps").text) > 0
    reply = visitor.ask("HEAD", "/apps")
    assert (reply.status, reply.text) == (200, "")
    assert int(reply.header("content-length")) > 0


# --- sizes, times, numbers


def test_a_huge_form(visitor: Visitor, served: Served) -> None:
    head = f"POST /apps/new HTTP/1.1\r\nHost: localhost:{served.port}\r\nContent-Length: %d\r\n\r\n"
    assert b" 413 " in visitor.raw((head % (MAX_BODY_OCTETS + 1)).encode()).split(b"\r\n")[0]
    assert b" 413 " in visitor.raw((head % 10**15).encode() + b"x" * 200_000).split(b"\r\n")[0]


def test_a_huge_form_in_pieces(visitor: Visitor, served: Served) -> None:
    head = f"POST /apps/new HTTP/1.1\r\nHost: localhost:{served.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert b" 413 " in visitor.raw(head.encode() + pieces * 6).split(b"\r\n")[0]


def test_many_and_long_headers(visitor: Visitor, served: Served) -> None:
    start = f"GET /health HTTP/1.1\r\nHost: localhost:{served.port}\r\n".encode()
    assert b" 200 " in visitor.raw(start + b"\r\n").split(b"\r\n")[0]
    many = b"".join(b"X-%d: y\r\n" % number for number in range(service.MAX_HEADERS + 1))
    assert b" 400 " in visitor.raw(start + many + b"\r\n").split(b"\r\n")[0]
    assert b" 400 " in visitor.raw(start + b"X: " + b"y" * 20_000 + b"\r\n\r\n").split(b"\r\n")[0]
    assert b" 400 " in visitor.raw(b"GET /" + b"a" * 20_000).split(b"\r\n")[0]


def test_two_lengths(visitor: Visitor, served: Served) -> None:
    """Request smuggling needs two readers; even so there is one length only."""
    head = f"POST / HTTP/1.1\r\nHost: localhost:{served.port}\r\nContent-Length: 1\r\n"
    for more in ("Content-Length: 2", "Transfer-Encoding: chunked"):
        assert b" 400 " in visitor.raw(f"{head}{more}\r\n\r\nxx".encode()).split(b"\r\n")[0]


def test_a_second_request_on_one_connection_is_not_read(visitor: Visitor, served: Served) -> None:
    one = f"GET /health HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode()
    assert visitor.raw(one * 3).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_slow_request_is_cut_off(sent: bytes, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READ_LIMIT_S", 0.2)
    assert visitor.raw(sent) == b"", "the connection ends without an answer"


def test_a_trickle_does_not_prolong_it(visitor: Visitor, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READ_LIMIT_S", 0.3)
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.05) as connection:
        ended = False
        while not ended:
            try:
                connection.sendall(b"x")
                sent += 1
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert sent < 100


def test_connections_are_few(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_CONNECTIONS", 3)
    held = [socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) for _ in range(3)]
    try:
        for connection in held:
            connection.sendall(b"G")
        whole = f"GET /health HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n"
        assert Visitor(served.port).raw(whole.encode()) == b""
    finally:
        for connection in held:
            connection.close()
    served.turning.wait(lambda: _none_left(served))
    assert Visitor(served.port).ask("GET", "/health").status == 200


async def _none_left(served: Served) -> None:
    while served.page._factory.channels:
        await deferLater(served.turning.reactor, 0.01)


def test_requests_are_few(visitor: Visitor, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "REQUESTS_PER_S", 0.0)
    taken = 1  # by the link
    statuses = [Visitor(served.port).ask("GET", "/health").status for _ in range(guards.BURST_REQUESTS + 2)]
    assert statuses.count(200) == guards.BURST_REQUESTS - taken
    assert set(statuses) == {200, 429}
    assert visitor.get("/apps").status == 200


def test_the_page_listens_on_loopback_only(served: Served) -> None:
    hosts = {cast("Any", port.getHost()).host for port in served.page._ports}
    assert hosts <= {"127.0.0.1", "::1"}
    assert "127.0.0.1" in hosts
