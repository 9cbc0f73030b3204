"""Where the page listens, and what is said where it cannot: service.py. Its bounds: test_attacks.py."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from proxy.app.answers import DeskError
from proxy.app.page import service
from proxy.app.page.service import PageService, make_page
from proxy.app.registry import Registry
from tests.app.home import Beside
from tests.app.page.visitor import Served, Visitor
from tests.servers.child import free_port

Start = Callable[[str, int], PageService]


@pytest.fixture
def start(beside: Beside) -> Iterator[Start]:
    pages: list[PageService] = []
    turning = beside.turning

    def start(address: str, port: int) -> PageService:
        registry = Registry(beside.office.config.file, {})  # type: ignore[arg-type]
        page = make_page((address, port), beside.desk, registry, beside.office, cast("Any", turning.reactor))
        turning.call(page.start)
        pages.append(page)
        return page

    yield start
    for page in pages:
        turning.wait(page.stop)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_both_loopbacks(address: str, start: Start) -> None:
    """Microsoft sends the browser back to `localhost`, whichever it is."""
    port = free_port()
    page = start(address, port)
    assert page.link().startswith(f"http://localhost:{port}/open/")
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), timeout=10).close()


def test_another_loopback_address(start: Start) -> None:
    port = free_port()
    page = start("127.0.0.2", port)
    assert page.link().startswith(f"http://127.0.0.2:{port}/open/")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_port_that_is_taken(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        page = start("127.0.0.1", port)
        with pytest.raises(DeskError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            page.link()
    assert "page cannot listen" in caplog.text


def test_where_somebody_sits_on_the_other_loopback_localhost_is_not_said(start: Start) -> None:
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as other:
        port = other.getsockname()[1]
        assert start("127.0.0.1", port).link().startswith(f"http://127.0.0.1:{port}/open/")


def test_a_stopped_page_gives_no_link(start: Start, beside: Beside) -> None:
    page = start("127.0.0.1", free_port())
    beside.turning.wait(page.stop)
    with pytest.raises(DeskError, match="stopping"):
        page.link()


def test_stopping_ends_what_is_open(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(b"GET ")
        Visitor(served.port).ask("GET", "/health")
        served.turning.wait(served.page.stop)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_an_answer_that_takes_for_ever(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ANSWER_LIMIT_S", 0.1)

    async def never(verb: str, arguments: object) -> None:
        await Deferred[None]()

    monkeypatch.setattr(served.beside.desk, "ask", never)
    assert Visitor(served.port).ask("GET", "/health").status == 504


def test_nothing_of_a_request_stands_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    link = served.link()
    Visitor(served.port).enter(link)
    assert link.rpartition("/")[2] not in caplog.text
