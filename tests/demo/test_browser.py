"""The played browser. What it does with each kind of answer is in `test_identity.py`."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from proxy.demo.browser import Return, sign_in
from proxy.demo.identity import TENANT, IdentityProvider

APP, ALICE = "11111111-1111-4111-8111-111111111111", "alice@contoso.com"


def test_it_goes_straight_to_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web proxy in the environment has no business with loopback."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with IdentityProvider(tmp_path) as provider:
        provider.add_person(ALICE)
        provider.add_app(APP)
        provider.sign_in_as(ALICE)
        query = (
            f"client_id={APP}&response_type=code&redirect_uri=http://localhost&state=s"
            "&scope=https://outlook.office.com/SMTP.Send&code_challenge_method=S256&code_challenge=x"
        )
        back = sign_in(f"{provider.base}/{TENANT}/oauth2/v2.0/authorize?{query}", provider.ca_file)
    assert back.target == "http://localhost/"
    assert back.fields.keys() == {"code", "state"}


@pytest.mark.parametrize("posted", [False, True])
def test_it_delivers_the_fields_as_it_was_told(posted: bool) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._note(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._note(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _note(self, fields: str) -> None:
            seen.append((self.command, dict(parse_qsl(fields))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write("schön".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    fields = {"code": "a&b=c", "state": "s"}
    with HTTPServer(("127.0.0.1", 0), Listening) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        answer = Return(f"http://127.0.0.1:{server.server_port}/", fields, posted).deliver()
        thread.join()
    assert answer == "schön"
    assert seen == [("POST" if posted else "GET", fields)]
