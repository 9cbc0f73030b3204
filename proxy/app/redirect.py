"""Catches the redirect that ends a sign-in by browser: a page on loopback that lives for one sign-in (RFC 8252 §7.3).

It runs in the command, on the machine whose browser it is, and hands the query over; whoever started the sign-in checks
state and code.
"""

from __future__ import annotations

import html
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

MAX_FORM_OCTETS = 65_536
READ_LIMIT_S = 10.0  # a browser sends its request at once
SIGN_IN_LIMIT_S = 10 * 60.0  # as long as a sign-in lives (FACTS 4.2)


class Catcher:
    """Listens on 127.0.0.1 from the start; use as a context manager.

    `redirect_uri` is what Microsoft sends the browser back to: the registered one, with our port. For `localhost`
    Microsoft ignores the port (FACTS 1.3), so a free one is taken unless the registered one names it.
    """

    def __init__(self, registered_uri: str) -> None:
        parts = urllib.parse.urlsplit(registered_uri)
        self._path = parts.path or "/"
        self._server = HTTPServer(("127.0.0.1", parts.port or 0), _Landing)
        self._server.timeout = 1.0
        self._server.caught = None  # type: ignore[attr-defined]
        self._server.landing_path = self._path  # type: ignore[attr-defined]
        self.redirect_uri = f"http://localhost:{self._server.server_port}{parts.path}"

    def __enter__(self) -> Catcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self) -> dict[str, str] | None:
        """The query of the redirect; None if none came in time."""
        end_s = time.monotonic() + SIGN_IN_LIMIT_S
        while time.monotonic() < end_s:
            self._server.handle_request()
            caught: dict[str, str] | None = self._server.caught  # type: ignore[attr-defined]
            if caught is not None:
                return caught
        return None


class _Landing(BaseHTTPRequestHandler):
    """Takes a GET, or a POST with the same fields as a form (`response_mode=form_post`)."""

    timeout = READ_LIMIT_S

    def do_GET(self) -> None:
        self._land(urllib.parse.urlsplit(self.path).query)

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), MAX_FORM_OCTETS)
        self._land(self.rfile.read(length).decode("ascii", "replace"))

    def _land(self, query: str) -> None:
        fields = dict(reversed(urllib.parse.parse_qsl(query)))
        ours = urllib.parse.urlsplit(self.path).path == self.server.landing_path  # type: ignore[attr-defined]
        if not ours or not ({"code", "error"} & fields.keys()):
            self.send_error(404, "This page only ends a sign-in of mailferry")
            return
        self.server.caught = fields  # type: ignore[attr-defined]
        said = "Microsoft has answered. You can close this page; the command that you started says how it went."
        page = f"<!doctype html><meta charset=utf-8><title>mailferry</title><p>{html.escape(said)}</p>".encode()
        self.send_response(200)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Security-Policy", "default-src 'none'"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not at all: the line would hold the code."""
