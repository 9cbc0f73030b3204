"""Catches the redirect that ends a sign-in by browser: a page on loopback that lives for one sign-in (RFC 8252 §7.3).

It runs in the command, on the machine whose browser it is, and hands the query over; whoever started the sign-in checks
state and code. Each connection has a thread of its own, because browsers open some in advance and keep them silent.
"""

from __future__ import annotations

import contextlib
import html
import os
import queue
import socket
import socketserver
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler

from proxy.accounts.outcomes import explain, sort_error
from proxy.app.verbs.terminal import UsageError
from proxy.config.settings import LOOPBACK_ADDRESSES

MAX_FORM_OCTETS = 65_536
READ_LIMIT_S = 10.0  # a browser sends its request at once
SIGN_IN_LIMIT_S = 10 * 60.0  # as long as a sign-in lives (FACTS 4.2)
_END_POLL_S = 0.05


def can_catch(registered_uri: str) -> bool:
    """Whether the address leads to this machine; others are https (FACTS 1.3)."""
    return urllib.parse.urlsplit(registered_uri).scheme == "http"


class Catcher:
    """Listens on loopback from the start; use as a context manager.

    `redirect_uri` is what Microsoft sends the browser back to: the registered one, with our port. For `localhost`
    Microsoft ignores the port (FACTS 1.3), so a free one is taken unless the registered one names it.

    Raises:
        UsageError: the registered address does not lead here, or its port cannot be had.
    """

    def __init__(self, registered_uri: str) -> None:
        if not can_catch(registered_uri):
            raise UsageError(f"The app's redirect address is {registered_uri}, not this machine: use --paste.")
        parts = urllib.parse.urlsplit(registered_uri)
        self._caught: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        landing = partial(_Landing, parts.path or "/", self._caught.put)
        try:
            self._servers = [_Server(LOOPBACK_ADDRESSES[0], parts.port or 0, landing)]
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise UsageError(f"Cannot listen at {registered_uri}, the app's redirect address: {why}.") from None
        port = self._servers[0].server_address[1]
        if parts.hostname == "localhost":
            with contextlib.suppress(OSError):  # no IPv6 here; a browser then goes on to 127.0.0.1
                self._servers.append(_Server(LOOPBACK_ADDRESSES[1], port, landing))
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(_END_POLL_S,), daemon=True).start()
        self.redirect_uri = f"http://{parts.hostname}:{port}{parts.path}"

    def __enter__(self) -> Catcher:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def wait(self, state: str) -> Mapping[str, str] | None:
        """The query of the redirect that bears this state; None if none came in time."""
        end_s = time.monotonic() + SIGN_IN_LIMIT_S
        with contextlib.suppress(queue.Empty):
            while True:
                fields = self._caught.get(timeout=max(0.0, end_s - time.monotonic()))
                if fields.get("state") == state:  # else it is an old page's, or a stranger's
                    return fields
        return None


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True  # a registered port is used again and again

    def __init__(self, host: str, port: int, landing: Callable[..., _Landing]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), landing)

    def handle_error(self, request: object, client_address: object) -> None:
        """Not told: a browser that breaks off is nothing to a person at a terminal."""


class _Landing(BaseHTTPRequestHandler):
    """Takes a GET, or a POST with the same fields as a form (`response_mode=form_post`)."""

    timeout = READ_LIMIT_S
    server_version, sys_version = "mailferry", ""

    def __init__(self, path: str, caught: Callable[[Mapping[str, str]], None], *connection: object) -> None:
        self._landing_path = path
        self._caught = caught
        super().__init__(*connection)  # type: ignore[arg-type]  # and answers the request

    def do_GET(self) -> None:
        self._land(urllib.parse.urlsplit(self.path).query)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        octets = min(int(length), MAX_FORM_OCTETS) if length.isascii() and length.isdigit() else 0
        self._land(self.rfile.read(octets).decode("ascii", "replace"))

    def _land(self, query: str) -> None:
        fields = dict(reversed(urllib.parse.parse_qsl(query)))
        ours = urllib.parse.urlsplit(self.path).path == self._landing_path
        if not ours or not ({"code", "error"} & fields.keys()):
            self.send_error(404, "This page only ends a sign-in of mailferry")
            return
        try:
            self._show_page(_words(fields))
        finally:
            self._caught(fields)  # last, since the command may end now; and whether or not the browser is still there

    def _show_page(self, said: str) -> None:
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


def _words(fields: Mapping[str, str]) -> str:
    """What the browser shows. Any page can send a browser here, so of an error only our own words are shown."""
    if "code" in fields:
        return "Microsoft has answered. You can close this page; the command that you started says how it went."
    row = explain(sort_error(fields)).for_()
    cause = row.cause if row.known else "Microsoft gave an error that mailferry does not know."
    return f"Nobody was signed in. {cause} You can close this page; the command that you started says what to do."
