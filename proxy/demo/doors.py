"""The HTTP doors of the stand-in sign-in service: addresses in, the provider's answers out, failures on demand.

What it is: OAuth's endpoints as Entra lays them out, over TLS. What it is not: the rules (`directory.py`) or the
tokens (`grants.py`). `identity.py` starts it.
"""

from __future__ import annotations

import contextlib
import enum
import html
import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from proxy.demo.directory import Refused

if TYPE_CHECKING:
    from proxy.demo.identity import IdentityProvider

MAX_BODY_OCTETS = 65_536  # a form with a code and a certificate's assertion has about 3 KB
IDLE_LIMIT_S = 60  # a kept-alive connection; also the bound of one that never sends its request
RETRY_AFTER_S = 2  # short, so that msal's own memory of a 429 ends within a test (FACTS 4.4)
BACKLOG = 512  # the bench opens hundreds of connections at once

DISCOVERY, AUTHORIZE, TOKEN, DEVICE_CODE, INTROSPECTION = "discovery", "authorize", "token", "devicecode", "introspect"


class Failure(enum.Enum):
    """What `fail` makes of the answers: troubles of HTTP, or an AADSTS refusal of the token endpoint."""

    THROTTLED = "429 with Retry-After"
    UNAVAILABLE = "503"
    HTML_PAGE = "200 with a page, as captive portals answer"
    HANGS = "no answer"
    DISCONNECTS = "the connection is closed"
    INVALID_GRANT = 50173
    CONSENT_REQUIRED = 65001
    TEMPORARILY_UNAVAILABLE = 90033
    LOOP_DETECTED = 50196
    MFA_NEEDED = 50076
    CONDITIONAL_ACCESS = 53003
    ADMIN_CONSENT_NEEDED = 90094
    SECRET_EXPIRED = 7000222


class Server(ThreadingHTTPServer):
    """One thread a connection, which also does its handshake, so that a silent client holds up nobody."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG

    def __init__(self, port: int, context: ssl.SSLContext, provider: IdentityProvider) -> None:
        self.provider = provider
        self._context = context
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Doors)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(IDLE_LIMIT_S)
        with contextlib.suppress(OSError), self._context.wrap_socket(request, server_side=True) as stream:
            self._open.add(stream)
            try:
                super().finish_request(stream, client_address)
            finally:
                self._open.discard(stream)

    def server_close(self) -> None:
        super().server_close()
        for stream in list(self._open):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class _Doors(BaseHTTPRequestHandler):
    """One request at a time: read it, fail it if that is due, else ask the provider and answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Silent: request lines hold codes."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_OCTETS:
            self.close_connection = True
            self._send(413, "text/plain", "The request is too large.")
            return
        self._serve(dict(parse_qsl(self.rfile.read(length).decode("utf-8", "replace"), keep_blank_values=True)))

    def _serve(self, form: dict[str, str]) -> None:
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        provider, post = self.server.provider, self.command == "POST"
        tenant, _, rest = address.path.strip("/").partition("/")
        endpoint, answer = self._endpoint(tenant, rest, post)
        provider.requests.append((endpoint, form.get("grant_type", "")))
        failure = provider.failure_at(endpoint)
        try:
            if failure is None:
                answer(tenant, form if post else query)
            elif isinstance(failure, Failure) and not isinstance(failure.value, int):
                self._fail(failure)
            else:
                refused = failure if isinstance(failure, Refused) else Refused(failure.value)
                if endpoint == AUTHORIZE:
                    self._authorize(tenant, query, refused)
                else:
                    raise refused.with_traceback(None)  # the same one for every request
        except Refused as refused:
            if endpoint == AUTHORIZE:
                text = html.escape(refused.description(time.time()))
                self._send(400, "text/html", f"<title>Sign in to your account</title><p>{text}</p>")
            else:
                self._send_json(refused.status, self._error(refused))

    def _endpoint(self, tenant: str, rest: str, post: bool) -> tuple[str, Callable[[str, dict[str, str]], None]]:
        match rest:
            case "v2.0/.well-known/openid-configuration" | ".well-known/openid-configuration" if not post:
                return DISCOVERY, lambda tenant, _: self._send_json(200, self.server.provider.discovery(tenant))
            case "oauth2/v2.0/authorize" if not post:
                return AUTHORIZE, self._authorize
            case "oauth2/v2.0/token" if post:
                return TOKEN, lambda tenant, form: self._send_json(200, self.server.provider.token(tenant, form))
            case "oauth2/v2.0/devicecode" if post:
                return DEVICE_CODE, lambda tenant, form: self._send_json(
                    200, self.server.provider.start_device(tenant, form)
                )
            case "" if tenant == INTROSPECTION:
                return INTROSPECTION, self._introspect
            case "" if tenant == "devicelogin":
                return tenant, lambda *_: self._send(
                    200, "text/html", "<p>This is a stand-in. Codes are not typed here."
                )
            case _:
                return "none", lambda *_: self._send(404, "text/plain", "There is no such page here.")

    def _authorize(self, tenant: str, query: dict[str, str], planted: Refused | None = None) -> None:
        fields = self.server.provider.authorize(tenant, query, planted)
        target = query["redirect_uri"]
        if not urlsplit(target).path:
            target += "/"  # as Entra sends it back (FACTS 1.3)
        if query.get("response_mode", "query") == "form_post":
            inputs = "".join(
                f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in fields.items()
            )
            form = f'<form method="post" action="{html.escape(target)}">{inputs}<button>Continue</button></form>'
            self._send(200, "text/html", f"{form}<script>document.forms[0].submit()</script>")
        else:
            self._send(302, "text/html", "", Location=f"{target}?{urlencode(fields)}")

    def _introspect(self, _: str, fields: dict[str, str]) -> None:
        scheme, _, bearer = self.headers.get("Authorization", "").partition(" ")
        token = fields.get("token") or (bearer if scheme.casefold() == "bearer" else "")
        self._send_json(200, self.server.provider.introspect(token))

    def _fail(self, failure: Failure) -> None:
        match failure:
            case Failure.THROTTLED:
                self._send(429, "text/plain", "Too many requests.", **{"Retry-After": str(RETRY_AFTER_S)})
            case Failure.UNAVAILABLE:
                self._send(503, "text/html", "<h1>Service Unavailable</h1>")
            case Failure.HTML_PAGE:
                self._send(200, "text/html", "<title>Welcome to this hotel</title><p>Please log in to use the network.")
            case Failure.HANGS:
                self.server.provider.hang()
                self.close_connection = True
            case _:
                self.close_connection = True

    def _error(self, refused: Refused) -> dict[str, Any]:
        now, trace = time.time(), str(uuid.uuid4())
        correlation = self.headers.get("client-request-id") or str(uuid.uuid4())
        return {
            "error": refused.error,
            "error_description": refused.description(now, trace, correlation),
            "error_codes": [refused.code],
            "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now)),
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"{self.server.provider.base}/error?code={refused.code}",
            **({"suberror": refused.suberror} if refused.suberror else {}),
        }

    def _send_json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document))

    def _send(self, status: int, kind: str, body: str, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)
