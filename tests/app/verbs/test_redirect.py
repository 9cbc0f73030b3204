"""The page that catches a sign-in's answer, over real sockets on both loopback families."""

from __future__ import annotations

import queue
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

import pytest

from proxy.app.verbs import redirect
from proxy.app.verbs.redirect import Catcher, can_catch
from proxy.app.verbs.terminal import UsageError
from tests.servers.child import free_port

ANSWER = {"code": "the-code", "state": "the-state"}
PATIENCE_S = 20


@pytest.fixture
def catcher() -> Iterator[Catcher]:
    with Catcher("http://localhost") as catcher:
        yield catcher


def visit(address: str, form: dict[str, str] | None = None) -> tuple[int, str]:
    """What a browser gets: a GET, or the POST of a form."""
    data = None if form is None else urlencode(form).encode()
    try:
        with urllib.request.urlopen(address, data, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def port(catcher: Catcher) -> int:
    number = urlsplit(catcher.redirect_uri).port
    assert number is not None
    return number


def nothing_yet(catcher: Catcher, monkeypatch: pytest.MonkeyPatch) -> bool:
    with monkeypatch.context() as impatient:
        impatient.setattr(redirect, "SIGN_IN_LIMIT_S", 0.0)
        return catcher.wait(ANSWER["state"]) is None


def test_a_get(catcher: Catcher) -> None:
    code, page = visit(f"{catcher.redirect_uri}/?{urlencode(ANSWER)}")
    assert code == 200
    assert "close this page" in page
    assert "the-code" not in page
    assert catcher.wait("the-state") == ANSWER


def test_a_form(catcher: Catcher) -> None:
    assert visit(catcher.redirect_uri, ANSWER)[0] == 200
    assert catcher.wait("the-state") == ANSWER


def test_a_refusal_is_an_answer(catcher: Catcher) -> None:
    refused = {"error": "access_denied", "error_description": "No & no", "state": "the-state"}
    visit(f"{catcher.redirect_uri}?{urlencode(refused)}")
    assert catcher.wait("the-state") == refused


@pytest.mark.parametrize("path", ["/favicon.ico", "/", "/?state=the-state", "/other?code=x&state=the-state", "/?code="])
def test_other_visits_are_no_answer(path: str, catcher: Catcher, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visit(catcher.redirect_uri + path)[0] == 404
    assert nothing_yet(catcher, monkeypatch)
    visit(f"{catcher.redirect_uri}?{urlencode(ANSWER)}")
    assert catcher.wait("the-state") == ANSWER


@pytest.mark.parametrize("state", [{}, {"state": "an old one"}])
def test_the_answer_of_another_sign_in_is_none(
    state: dict[str, str], catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(f"{catcher.redirect_uri}?{urlencode({'code': 'stray', **state})}")
    assert nothing_yet(catcher, monkeypatch)
    visit(f"{catcher.redirect_uri}?{urlencode(ANSWER)}")
    assert catcher.wait("the-state") == ANSWER


@pytest.mark.parametrize(
    ("registered", "path"),
    [("http://localhost/back", "/back"), ("http://localhost/", "/"), ("http://127.0.0.1/back", "/back")],
)
def test_the_registered_name_and_path_stay(registered: str, path: str) -> None:
    with Catcher(registered) as catcher:
        host = urlsplit(registered).hostname
        assert catcher.redirect_uri == f"http://{host}:{port(catcher)}{path}"
        assert visit(f"{catcher.redirect_uri}?{urlencode(ANSWER)}")[0] == 200
        assert catcher.wait("the-state") == ANSWER


def test_a_registered_port_is_used_again_and_again() -> None:
    number = free_port()
    for _ in range(2):
        with Catcher(f"http://localhost:{number}") as catcher:
            assert catcher.redirect_uri == f"http://localhost:{number}"
            with socket.create_connection(("127.0.0.1", number), PATIENCE_S) as client:
                client.sendall(f"GET /?{urlencode(ANSWER)} HTTP/1.1\r\n\r\n".encode())
                with client.makefile("rb") as answer:
                    answer.read()  # the server closes first: its port stays in TIME_WAIT
            assert catcher.wait("the-state") == ANSWER


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uri = f"http://localhost:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"{uri}.*in use"):
            Catcher(uri)


def test_an_address_elsewhere_cannot_be_caught() -> None:
    assert can_catch("http://localhost")
    assert not can_catch("https://mail.contoso.com/back")
    with pytest.raises(UsageError, match="--paste"):
        Catcher("https://mail.contoso.com/back")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_localhost_is_both_families(host: str, catcher: Catcher) -> None:
    visit(f"http://{host}:{port(catcher)}/?{urlencode(ANSWER)}")
    assert catcher.wait("the-state") == ANSWER


def test_nobody_else_is_reached(catcher: Catcher) -> None:
    addresses = [server.server_address[0] for server in catcher._servers]
    assert addresses == ["127.0.0.1", "::1"]


def test_a_silent_connection_holds_up_nobody(catcher: Catcher) -> None:
    silent = [socket.create_connection(("127.0.0.1", port(catcher)), PATIENCE_S) for _ in range(3)]
    silent[0].sendall(b"GET /?code=half")
    assert visit(f"{catcher.redirect_uri}?{urlencode(ANSWER)}")[0] == 200
    assert catcher.wait("the-state") == ANSWER
    for each in silent:
        each.close()


def test_a_connection_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redirect._Landing, "timeout", 0.1)
    with Catcher("http://localhost") as catcher, socket.create_connection(("127.0.0.1", port(catcher))) as slow:
        slow.settimeout(PATIENCE_S)
        slow.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        assert slow.recv(1) == b"", "closed without an answer"


@pytest.mark.parametrize("length", ["x", "-1", "999999999999", "1e3", ""])
def test_nonsense_is_survived_in_silence(length: str, catcher: Catcher, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", port(catcher)), PATIENCE_S) as stranger:
        stranger.sendall(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        stranger.shutdown(socket.SHUT_WR)
        with stranger.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.0 404 ")
    visit(f"{catcher.redirect_uri}?{urlencode(ANSWER)}")
    assert catcher.wait("the-state") == ANSWER
    assert capfd.readouterr() == ("", ""), "neither a traceback nor the code"


def test_a_browser_that_leaves_before_the_page_has_answered_nevertheless() -> None:
    class Gone:
        def write(self, data: bytes) -> None:
            raise BrokenPipeError

    caught: queue.SimpleQueue[object] = queue.SimpleQueue()
    landing = redirect._Landing.__new__(redirect._Landing)
    landing._landing_path, landing._caught = "/", caught.put
    landing.path, landing.request_version, landing.requestline = "/?code=x", "HTTP/1.1", ""
    landing.wfile = Gone()  # type: ignore[assignment]
    with pytest.raises(BrokenPipeError):
        landing.do_GET()
    assert caught.get_nowait() == {"code": "x"}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("AADSTS65004: User declined to consent.", "consent"),
        ("AADSTS53003: Access has been blocked.", "rules"),
        ("<script>alert(1)</script> call 555-1234 now", "does not know"),
    ],
    ids=["consent denied", "blocked by a rule", "anybody's own words"],
)
def test_an_error_is_said_on_the_page_in_words_of_ours(description: str, said: str, catcher: Catcher) -> None:
    fields = {"error": "access_denied" if "AADSTS" in description else "x", "error_description": description}
    fields["state"] = "the-state"
    status, page = visit(f"{catcher.redirect_uri}?{urlencode(fields)}")
    assert status == 200
    assert "Nobody was signed in." in page
    assert said in page
    assert not any(word in page for word in ("alert", "555", "AADSTS"))
    assert catcher.wait("the-state") == fields


def test_a_page_that_must_not_be_kept(catcher: Catcher) -> None:
    with closing(urllib.request.urlopen(f"{catcher.redirect_uri}?{urlencode(ANSWER)}", timeout=PATIENCE_S)) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Python" not in answer.headers["Server"]


def test_its_thread_ends(catcher: Catcher, tmp_path: Path) -> None:
    with Catcher("http://localhost") as short:
        number = port(short)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", number), PATIENCE_S)
