"""The site: from a request to its answer. Routes, templates, static files, error pages; nothing here knows a socket.

Every module of this package may have `ROUTES`; they are found by themselves. A handler is called only after the guard
has let the request through; whatever it raises ends in a page that says what to do, never in a traceback.
"""

from __future__ import annotations

import datetime
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from twisted.internet.defer import CancelledError

from proxy import __version__
from proxy.accounts.store import StoreError
from proxy.app import page as package
from proxy.app.answers import DeskError
from proxy.app.page.guard import Guard, Session, Turned
from proxy.app.page.wire import (
    Answer,
    Asked,
    Download,
    Page,
    Problem,
    Received,
    Redirect,
    Route,
    Sent,
    Unreadable,
    Works,
    headers_for,
    path_to,
    read_form,
    read_target,
    segment,
)
from proxy.app.verbs.terminal import UsageError
from proxy.config import ConfigurationError
from proxy.log import Log
from proxy.login import LoginRefused

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_HTML = "text/html; charset=utf-8"
_FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_SAFE_IN_A_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-")
_ELSEWHERE = ("cross-site", "same-site")  # other ports of this machine are the same site, and still strangers
_NO_SESSION = Problem(
    403,
    "This page opens with a link",
    "Your browser is not known here yet, or its session has ended.",
    "Run `mailferry page` on this machine, and open the link that it prints.",
)

log = Log("page")


def found_routes() -> Iterator[Route]:
    """The routes of all topics."""
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        yield from getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "ROUTES", ())


class Site:
    """Answers every request to one page."""

    def __init__(self, works: Works, guard: Guard, routes: Iterable[Route] | None = None) -> None:
        self._works = works
        self._guard = guard
        self._routes = sorted(found_routes() if routes is None else routes, key=_by_literal_steps)
        self._static = dict(_read_static(STATIC))
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.globals |= {"version": __version__, "path_to": path_to}
        self._templates.filters["segment"] = segment

    async def respond(self, received: Received) -> Sent:
        """The answer. Raises: CancelledError: whoever waits for it has stopped."""
        session: Session | None = None
        try:
            host = self._guard.check_host(received)
            steps, query = read_target(received.target)
            if received.method not in ("GET", "HEAD", "POST"):
                raise Unreadable(405, "The page knows GET, HEAD and POST.")
            if steps[0] == "static":
                return self._send_static(received, steps[1:])
            landed = await self._works.returns.land(received, steps, query, self._works)
            if landed is not None:
                return self._send(landed, received, None, leaks=True)
            session = self._guard.session(received)
            if steps[0] == "open" and len(steps) == 2:
                return self._open(received, steps[1])
            return await self._route(received, steps, query, session, f"http://{host}")
        except Turned as turned:
            return self._send(Problem(turned.status, turned.title, turned.text, turned.remedy), received, None)
        except Unreadable as unreadable:
            return self._send(Problem(unreadable.status, "That is no request", unreadable.text), received, None)
        except CancelledError:
            raise  # it took too long, and somebody else says so
        except Exception as error:
            return self._send_mistake(error, received, session)

    def _open(self, received: Received, token: str) -> Sent:
        """The one-time link. A browser that only loads ahead does not use it up."""
        if received.method != "GET" or "sec-purpose" in received.headers:
            raise Turned(405, "Open the link itself", "The link was not opened by a person.")
        cookie = self._guard.set_cookie(self._guard.open(token))
        headers = (*headers_for(_HTML, leaks=True), ("Set-Cookie", cookie), ("Location", "/"), ("Content-Length", "0"))
        return Sent(303, headers)

    async def _route(
        self, received: Received, steps: list[str], query: Mapping[str, str], session: Session | None, base: str
    ) -> Sent:
        method = "GET" if received.method == "HEAD" else received.method
        matches = [(route, path) for route in self._routes if (path := route.match(steps)) is not None]
        route, path = next(((route, path) for route, path in matches if route.method == method), (None, {}))
        if route is None or not route.open:
            if method == "GET" and received.header("sec-fetch-site") in _ELSEWHERE:
                return self._send_bounce(received, steps)
            if session is None:
                return self._send(_NO_SESSION, received, None)
        if route is None:
            return self._send_nothing_there(received, session, {match.method for match, _ in matches})
        fields: tuple[tuple[str, str], ...] = ()
        if method == "POST":
            fields = read_form(received)
            if session is not None:
                csrf = dict(fields).get("csrf")
                self._guard.check_change(received, session, csrf, base.removeprefix("http://"))
        asked = Asked(path=path, query=query, service=self._works, base=base, fields=fields, session=session)
        return self._send(await _told(route, asked), received, session, here=route.here)

    # --- answers

    def _send(
        self, answer: Answer, received: Received, session: Session | None, *, here: str = "", leaks: bool = False
    ) -> Sent:
        more: tuple[tuple[str, str], ...] = ()
        match answer:
            case Redirect(to, notice):
                if notice and session is not None:
                    session.keep("notice", notice)
                headers = (*headers_for(_HTML), ("Location", _own_path(to)))
                return _sent(303, headers, b"", received)
            case Download(octets, media_type, file_name, status):
                if file_name:
                    name = "".join(c if c in _SAFE_IN_A_NAME else "_" for c in file_name)
                    more = (("Content-Disposition", f'attachment; filename="{name}"'),)
                return _sent(status, (*headers_for(media_type, policy=_FILE_POLICY), *more), octets, received)
            case Problem(status, title, text, remedy):
                answer = Page("problem.html", status=status, title=title, text=text, remedy=remedy)
        if answer.refresh_s or answer.refresh_to:
            to = f"; url={_header_text(answer.refresh_to)}" if answer.refresh_to else ""
            more = (("Refresh", f"{answer.refresh_s}{to}"),)
        html = self._render(answer, session, here)
        return _sent(answer.status, (*headers_for(_HTML, leaks=leaks), *more), html, received)

    def _render(self, page: Page, session: Session | None, here: str) -> bytes:
        """HTML. The refresh is a header alone, which works the same and is no trap for a screen reader's cursor."""
        always = {
            "here": page.here or here,
            "csrf": session.csrf if session is not None else "",
            "notice": (session.take("notice") if session is not None else None) or "",
            "refresh_s": 0,
        }
        return self._templates.get_template(page.template).render(always | page.context).encode()

    def _send_static(self, received: Received, steps: list[str]) -> Sent:
        """A file of the fixed list; what the browser wrote is never a file's name."""
        found = self._static.get("/".join(steps))
        if found is None or received.method == "POST":
            return self._send(Problem(404, "Nothing is here", "There is no such file."), received, None)
        media_type, octets = found
        return _sent(200, headers_for(media_type, policy=_FILE_POLICY), octets, received)

    def _send_bounce(self, received: Received, steps: list[str]) -> Sent:
        """Another site led the browser here: no handler hears of it, and the browser may have held its cookie back.
        From this page it comes again by itself, as from ourselves."""
        to = "/" + "/".join(map(segment, steps))
        return self._send(Page("bounce.html", refresh_to=to, to=to), received, None)

    def _send_nothing_there(self, received: Received, session: Session | None, others: set[str]) -> Sent:
        if others:
            problem = Problem(405, "Not in this way", "This page is read, or changed by its own form only.")
        else:
            problem = Problem(404, "Nothing is here", "There is no page with this address.", "Start from the set-up.")
        return self._send(problem, received, session)

    def _send_mistake(self, error: Exception, received: Received, session: Session | None) -> Sent:
        """Nobody foresaw it. The template may be what is broken, so there is plain text behind it."""
        log.failure("page failed", error, method=received.method)
        self._works.metrics.page_failures.inc()
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = f"mailferry made a mistake; its log has the details, at {when}."
        try:
            return self._send(Problem(500, "mailferry's mistake", text, "Please report it."), received, session)
        except Exception:
            return _sent(500, headers_for("text/plain; charset=utf-8"), text.encode(), received)


async def _told(route: Route, asked: Asked) -> Answer:
    """The handler's answer; what it could not do, in words."""
    try:
        return await route.handler(asked)
    except ConfigurationError as error:
        text = " ".join(f"{finding.problem}; {finding.remedy}." for finding in error.findings)
        return Problem(409, "The configuration does not allow this", text, "Nothing was changed.")
    except (DeskError, LoginRefused, StoreError) as error:
        return Problem(409, "This could not be done", error.text)
    except UsageError as error:
        return Problem(409, "This could not be done", str(error))


def _sent(status: int, headers: Iterable[tuple[str, str]], octets: bytes, received: Received) -> Sent:
    length = ("Content-Length", str(len(octets)))
    allow = (("Allow", "GET, HEAD, POST"),) if status == 405 else ()
    return Sent(status, (*headers, length, *allow), b"" if received.method == "HEAD" else octets)


def _own_path(to: str) -> str:
    """Raises: ValueError: it leads away from this page; a handler's mistake."""
    if not to.startswith("/") or to.startswith("//") or "\\" in to:
        raise ValueError("a redirect leads to a path of this page only")
    return _header_text(to)


def _header_text(text: str) -> str:
    """Raises: ValueError: it would end the header's line, or is no address."""
    if not all("!" <= character <= "~" for character in text):
        raise ValueError("an address in a header is printable ASCII")
    return text


def _by_literal_steps(route: Route) -> tuple[bool, ...]:
    """Literal steps before fields, so that `/accounts/new` is no account."""
    return tuple(step.startswith("{") for step in route.steps)


def _read_static(folder: Path) -> Iterator[tuple[str, tuple[str, bytes]]]:
    for file in folder.iterdir():
        if file.suffix in _MEDIA_TYPES and file.is_file():
            yield file.name, (_MEDIA_TYPES[file.suffix], file.read_bytes())
