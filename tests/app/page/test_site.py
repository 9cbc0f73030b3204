"""The site by itself: routes, error pages, what handlers raise, and what they may not answer: site.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from proxy.accounts.store import StoreUnavailable
from proxy.app.answers import DeskError
from proxy.app.page.site import Site, found_routes
from proxy.app.page.wire import Answer, Asked, Download, Handler, Page, Problem, Redirect, Route
from proxy.app.verbs.terminal import UsageError
from proxy.config.findings import refusal
from proxy.login import Fault, LoginRefused, Refusal
from tests.app.page.visitor import Served, Visitor

Serve = Callable[[Handler], None]


@pytest.fixture
def serve(served: Served) -> Serve:
    """The page has these routes only: GET and POST of `/it`, and an open one."""

    def serve(handler: Handler) -> None:
        routes = (
            Route("GET", "/it", handler),
            Route("POST", "/it", handler),
            Route("GET", "/open-it", handler, open=True),
        )
        site = served.page._factory.site
        served.page._factory.site = Site(site._works, site._guard, routes)

    return serve


def answering(answer: Any) -> Handler:
    async def handler(asked: Asked) -> Answer:
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    return handler


def test_every_topic_is_found() -> None:
    routes = list(found_routes())
    paths = {(route.method, route.path) for route in routes}
    assert len(paths) == len(routes), "no two answer the same"
    wanted = {
        ("GET", "/"),
        ("GET", "/register"),
        ("POST", "/apps/new"),
        ("GET", "/accounts/{login}"),
        ("GET", "/health"),
    }
    assert wanted <= paths
    assert {route.method for route in routes} == {"GET", "POST"}


def test_only_these_need_no_cookie() -> None:
    assert {(route.method, route.path) for route in found_routes() if route.open} == {
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/mail/config-v1.1.xml"),
        ("GET", "/.well-known/autoconfig/mail/config-v1.1.xml"),
    }


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DeskError("The desk says no."), 409, "The desk says no."),
        (LoginRefused(Refusal.TRY_LATER, "Later.", fault=Fault.NETWORK), 409, "Later."),
        (StoreUnavailable("The disk is full."), 409, "The disk is full."),
        (UsageError("Give a name."), 409, "Give a name."),
        (refusal(Any, "is wrong", "mend it"), 409, "is wrong; mend it."),  # type: ignore[arg-type]
        (RuntimeError("a secret thing"), 500, "mailferry made a mistake"),
    ],
)
def test_what_a_handler_raises(error: Exception, status: int, text: str, serve: Serve, visitor: Visitor) -> None:
    serve(answering(error))
    reply = visitor.get("/it")
    assert reply.status == status
    assert text in reply.words
    assert "Traceback" not in reply.text
    assert "a secret thing" not in reply.text


def test_a_broken_template_is_our_mistake(serve: Serve, visitor: Visitor) -> None:
    serve(answering(Page("problem.html")))
    reply = visitor.get("/it")
    assert reply.status == 500
    assert "mailferry made a mistake" in reply.words


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/a\\b", "/a\r\nSet-Cookie: x=y", "/ä", ""])
def test_a_redirect_leads_to_a_path_of_ours(to: str, serve: Serve, visitor: Visitor) -> None:
    serve(answering(Redirect(to)))
    reply = visitor.get("/it")
    assert reply.status == 500
    assert reply.header("location") == ""


def test_a_notice_is_shown_once(serve: Serve, visitor: Visitor) -> None:
    serve(answering(Redirect("/", "It is done.")))
    assert visitor.post("/it").status == 303
    serve(answering(Problem(200, "Next", "The next page")))
    assert "It is done." in visitor.get("/it").words
    assert "It is done." not in visitor.get("/it").words


def test_a_download(serve: Serve, visitor: Visitor) -> None:
    serve(answering(Download(b"<x/>", "application/xml", 'a b";\r\n\N{SNOWMAN}@c.xml')))
    reply = visitor.get("/it")
    assert reply.text == "<x/>"
    assert reply.header("content-disposition") == 'attachment; filename="a_b_____@c.xml"'
    assert "sandbox" in reply.header("content-security-policy")
    serve(answering(Download(b"<x/>", "application/xml")))
    assert visitor.get("/it").header("content-disposition") == ""


def test_a_page_that_refreshes(serve: Serve, visitor: Visitor) -> None:
    shown: dict[str, Any] = {"title": "x", "text": "y", "remedy": ""}
    serve(answering(Page("problem.html", refresh_s=7, **shown)))
    assert visitor.get("/it").header("refresh") == "7"
    serve(answering(Page("problem.html", refresh_to="https://login.example/?a=b", **shown)))
    assert visitor.get("/it").header("refresh") == "0; url=https://login.example/?a=b"
    serve(answering(Page("problem.html", refresh_to="/x\r\ny: z", **shown)))
    assert visitor.get("/it").status == 500


def test_an_open_route_knows_no_session(serve: Serve, served: Served) -> None:
    seen: list[Asked] = []

    async def look(asked: Asked) -> Answer:
        seen.append(asked)
        return Download(b"", "text/plain")

    serve(look)
    assert Visitor(served.port).ask("GET", "/open-it").status == 200
    assert seen[0].session is None
    assert seen[0].base == f"http://localhost:{served.port}"
    assert Visitor(served.port).ask("GET", "/it").status == 403


def test_a_literal_step_wins_over_a_field(served: Served) -> None:
    site = served.page._factory.site
    order = [route.path for route in site._routes if route.method == "GET"]
    assert order.index("/accounts/new") < order.index("/accounts/{login}")


def test_static_files(visitor: Visitor) -> None:
    reply = visitor.ask("GET", "/static/mailferry.css")
    assert (reply.status, reply.header("content-type")) == (200, "text/css; charset=utf-8")
    assert visitor.post("/static/mailferry.css").status == 404


def test_an_asked_thing_is_a_value(served: Served) -> None:
    assert dataclasses.is_dataclass(Asked)
    assert served.link().startswith(f"http://localhost:{served.port}/open/")
