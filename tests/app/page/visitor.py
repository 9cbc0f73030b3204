"""A browser of a test's own at the page: real sockets, a cookie jar, forms with their CSRF token. Not a test."""

from __future__ import annotations

import html
import http.client
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from proxy.app.page.service import PageService, make_page
from proxy.app.registry import Registry
from tests.app.home import PATIENCE_S, Beside, Home
from tests.servers.child import free_port

Fields = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    text: str = field(repr=False)

    def header(self, name: str) -> str:
        """Its value; empty without one. There must not be two."""
        (value,) = [value for key, value in self.headers if key.lower() == name.lower()] or [""]
        return value

    @property
    def words(self) -> str:
        """What a person reads, on one line."""
        bare = re.sub(r"<(script|style).*?</\1>", "", self.text, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        return found[1] if found else ""


class Served:
    """The page of a daemon's office, on a port of its own."""

    def __init__(self, home: Home, beside: Beside) -> None:
        self.home, self.beside = home, beside
        self.turning = beside.turning
        self.port = free_port()
        self.page: PageService = self.turning.call(self._make)
        self.turning.call(self.page.start)

    def _make(self) -> PageService:
        registry = Registry(self.home.file, {})
        office, desk = self.beside.office, self.beside.desk
        page = make_page(("127.0.0.1", self.port), desk, registry, office, cast("Any", self.turning.reactor))
        desk.page_link = page.link
        return page

    def link(self) -> str:
        return self.turning.call(self.page.link)

    def close(self) -> None:
        self.turning.wait(self.page.stop)


class Visitor:
    """Remembers cookies. `host` is what the Host header says; the socket always goes to this machine."""

    def __init__(self, port: int, host: str = "") -> None:
        self.port = port
        self.host = host or f"localhost:{port}"
        self.cookies: dict[str, str] = {}
        self.csrf = ""

    def enter(self, link: str) -> Reply:
        """Open the one-time link, and the page that it leads to."""
        reply = self.ask("GET", urlsplit(link).path)
        assert reply.status == 303, reply
        self.get("/apps/new")  # a page with a form: its CSRF token is the session's
        return self.get(reply.header("location"))

    def get(self, path: str, **headers: str) -> Reply:
        reply = self.ask("GET", path, headers=headers)
        self.csrf = reply.csrf or self.csrf
        return reply

    def post(self, path: str, fields: Fields | None = None, **headers: str) -> Reply:
        """A form of the page, as a browser sends it: CSRF token and Origin are there."""
        body = urlencode({"csrf": self.csrf, **(fields or {})}, doseq=True)
        return self.ask("POST", path, body=body, headers={"Origin": f"http://{self.host}", **headers})

    def submit(self, path: str, fields: Fields | None = None) -> Reply:
        """Post a form that must be taken, and look at the page that it leads to."""
        reply = self.post(path, fields)
        assert reply.status == 303, reply.words
        return self.get(reply.header("location"))

    def ask(self, method: str, target: str, *, body: str = "", headers: Mapping[str, str] | None = None) -> Reply:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        all_headers = {"Host": self.host}
        if self.cookies:
            all_headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body:
            all_headers |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
        for name, value in {**all_headers, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode())
        answer = connection.getresponse()
        reply = Reply(answer.status, tuple(answer.getheaders()), answer.read().decode())
        connection.close()
        for name, value in reply.headers:
            if name.lower() == "set-cookie":
                key, _, rest = value.partition("=")
                self.cookies[key] = rest.partition(";")[0]
        return reply

    def raw(self, octets: bytes) -> bytes:
        """What comes back for exactly these octets, until the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as connection:
            connection.sendall(octets)
            got = b""
            try:
                while piece := connection.recv(65_536):
                    got += piece
            except ConnectionResetError:
                pass
        return got
