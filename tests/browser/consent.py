"""The pages that a person sees at Microsoft: who signs in, what the app asks for, yes or no. Not a test.

The stand-in sign-in service decides without asking; inside a `with` it sends browsers here first. What is answered here
is told to it, and the browser goes on to its own endpoint.
"""

from __future__ import annotations

import html
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode, urlsplit

from proxy.demo.certificates import LocalCertificate
from proxy.demo.identity import IdentityProvider

IDLE_LIMIT_S = 30.0
_FORM = """<!doctype html><html lang="en"><head><title>Sign in to your account</title></head><body><main>
<h1>Permissions requested</h1><form method="get" action="/answer">{hidden}
<p><label>Account <input name="upn" value="{upn}"></label></p>
<p>This app would like to: {scopes}</p>
<p><button name="answer" value="accept">Accept</button> <button name="answer" value="cancel">Cancel</button></p>
</form></main></body></html>"""


@contextmanager
def consent_asked(identity: IdentityProvider, certificate: LocalCertificate) -> Iterator[str]:
    """Gives the address of these pages: scheme, host and port."""
    with _Server(identity, certificate.server_context()) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        base = f"https://localhost:{server.server_port}"
        discovery = identity.discovery

        def discover(tenant: str) -> dict[str, Any]:
            found = discovery(tenant)
            return found | {"authorization_endpoint": f"{base}/?{urlencode({'on': found['authorization_endpoint']})}"}

        with mock.patch.object(identity, "discovery", discover):
            yield base
        server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, identity: IdentityProvider, context: ssl.SSLContext) -> None:
        self.identity = identity
        self._context = context
        super().__init__(("127.0.0.1", 0), _Pages)

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(IDLE_LIMIT_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as stream:
                super().finish_request(stream, client_address)
        except OSError:
            pass  # browsers open connections in advance


class _Pages(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        fields = dict(parse_qsl(address.query))
        if address.path == "/":
            shown = {"upn": fields.get("login_hint", ""), "scopes": fields.get("scope", "")}
            hidden = "".join(
                f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
                for name, value in fields.items()
            )
            shown = {name: html.escape(value) for name, value in shown.items()}
            self._send(200, _FORM.format(hidden=hidden, **shown))
        elif address.path == "/answer":
            upn, answer, on = fields.pop("upn"), fields.pop("answer"), fields.pop("on")
            self.server.identity.sign_in_as(upn, declines=answer == "cancel")
            self._send(302, "", Location=f"{on}?{urlencode(fields)}")
        else:
            self._send(404, "")

    def _send(self, status: int, body: str, **headers: str) -> None:
        octets = body.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: addresses hold codes."""
