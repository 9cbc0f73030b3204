"""The inspection itself: it must find what is wrong with a bad page, or its silence on ours says nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.browser.inspection import too_broad, unreachable, violations
from tests.browser.webdriver import Browser

BAD = """<!doctype html><html lang="en"><head><title>Bad</title><style>
body { color: #777; background: #888; } a:focus-visible { outline: none; } p { width: 600px; }
</style></head><body><main><h1>Bad</h1><input name="unlabelled"><a href="/">a link</a><p>broad</p>
<button style="position:absolute;top:0">first</button><button tabindex="-1">never</button>
<img src="http://127.0.0.1:9/foreign.png" alt=""></main><script>console.error("oops")</script></body></html>"""
GOOD = """<!doctype html><html lang="en"><head><title>Good</title>
<style>:focus-visible { outline: 3px solid blue } body { margin: 0 }</style></head>
<body><main><h1>Good</h1><a href="/">a link</a> <label>Name <input name="a"></label>
<label><input type="radio" name="r">one</label> <label><input type="radio" name="r">two</label></main></body></html>"""

REFRESH_S = 1


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = (BAD if self.path == "/bad" else GOOD).encode()
        self.send_response(200 if self.path in ("/good", "/bad", "/fresh") else 404)
        if self.path == "/fresh":
            self.send_header("Refresh", str(REFRESH_S))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def test_a_bad_page(browser: Browser, site: str) -> None:
    browser.open(f"{site}/bad")
    found = "\n".join(violations(browser, "light"))
    assert "color-contrast" in found
    assert "label" in found
    assert any("p. reaches" in each for each in too_broad(browser))
    wrong = "\n".join(unreachable(browser))
    assert "no ring around a " in wrong
    assert "not reached: button never" in wrong
    assert any("oops" in each for each in browser.complaints())
    assert "http://127.0.0.1:9" in browser.hosts()


def test_a_good_page(browser: Browser, site: str) -> None:
    browser.open(f"{site}/good")
    assert violations(browser, "light") == []
    assert violations(browser, "dark") == []
    assert too_broad(browser) == []
    assert unreachable(browser) == []


def test_a_page_that_is_held(browser: Browser, site: str) -> None:
    """It would come anew each second, which makes any inspection of it a matter of luck."""
    browser.open(f"{site}/fresh")
    browser.hold()
    browser.run("document.title = 'the same'")
    threading.Event().wait(2 * REFRESH_S)
    assert browser.title == "the same"


def test_without_scripts(site: str) -> None:
    with Browser(scripts=False) as browser:
        browser.open(f"{site}/bad")
        assert browser.text.startswith("Bad")
        assert browser.complaints() == [] or all("oops" not in each for each in browser.complaints())
