"""Connections as the doctor makes them: `lines.py`."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest

from proxy.app.doctor import lines
from proxy.app.doctor.certificates import read_chain
from proxy.app.doctor.lines import LineTrouble, ask, chain_of, connect, proxy_for, secured, usable_way
from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.identity import IdentityProvider
from tests.app.doctor.authorities import DAY, make_authority
from tests.servers.child import free_port

Serve = Callable[[socket.socket], None]


@contextmanager
def server(serve: Serve, host: str = "127.0.0.1") -> Iterator[int]:
    """Each connection is served so, then closed."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server((host, 0), Handler) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield int(made.server_address[1])
        made.shutdown()


def tls(certificate: LocalCertificate, before: Serve = lambda _: None) -> Serve:
    context = certificate.server_context()

    def serve(plain: socket.socket) -> None:
        before(plain)
        with context.wrap_socket(plain, server_side=True) as line:
            line.recv(1)

    return serve


def says(*lines_and_waits: bytes | None) -> Serve:
    """These lines; None waits for one of the other side."""

    def serve(plain: socket.socket) -> None:
        reader = plain.makefile("rb", buffering=0)
        for each in lines_and_waits:
            if each is None:
                reader.readline()
            else:
                plain.sendall(each)

    return serve


@pytest.fixture
def certificate(tmp_path: Path) -> LocalCertificate:
    return local_certificate(tmp_path)


def kind_of(call: Callable[[], object]) -> LineTrouble:
    with pytest.raises(LineTrouble) as caught:
        call()
    return caught.value


# --- TCP


def test_what_may_go_wrong_before_tls() -> None:
    assert kind_of(lambda: connect("nowhere.invalid", 993)).kind == "name"
    assert kind_of(lambda: connect("x" * 300, 993)).kind == "name"
    assert kind_of(lambda: connect("127.0.0.1", free_port())).kind == "refused"
    with mock.patch("socket.socket.connect", side_effect=TimeoutError):
        trouble = kind_of(lambda: connect("127.0.0.1", 1))
    assert (trouble.kind, "does not answer within" in trouble.text) == ("timeout", True)
    with mock.patch("socket.socket.connect", side_effect=OSError(errno.ENETUNREACH, "Network is unreachable")):
        trouble = kind_of(lambda: connect("127.0.0.1", 1))
    assert (trouble.kind, "network is unreachable" in trouble.text) == ("unreachable", True)


# --- TLS


def test_a_good_certificate_and_its_chain(certificate: LocalCertificate) -> None:
    with server(tls(certificate)) as port, secured("localhost", port, ca_file=certificate.ca_file) as line:
        assert read_chain(chain_of(line))[0].subject == '"localhost"'


@pytest.mark.parametrize(
    ("protocol", "before"),
    [
        ("smtp", says(b"220-hello\r\n220 there\r\n", None, b"250-x\r\n250 STARTTLS\r\n", None, b"220 go\r\n")),
        ("imap", says(b"* OK hello\r\n", None, b"F1 OK go\r\n")),
        ("pop3", says(b"+OK hello\r\n", None, b"+OK go\r\n")),
    ],
)
def test_starttls_of_each_protocol(certificate: LocalCertificate, protocol: str, before: Serve) -> None:
    with (
        server(tls(certificate, before)) as port,
        secured("localhost", port, ca_file=certificate.ca_file, starttls=protocol) as line,
    ):
        assert line.version()


@pytest.mark.parametrize(
    ("protocol", "before", "said"),
    [
        ("smtp", says(b"554 go away\r\n"), "554 go away"),
        ("smtp", says(b"220 x\r\n", None, b"250 x\r\n", None, b"502 no\r\n"), "502 no"),
        ("imap", says(b"* OK x\r\n", None, b"F1 BAD no\x1b[2J\r\n"), "F1 BAD no?[2J"),
        ("pop3", says(b"+OK x\r\n", None, b"-ERR no\r\n"), "-ERR no"),
        ("smtp", says(b"220-" + b"x" * 9_000), "broke off"),
        ("smtp", says(b"220-x\r\n" * 200), "broke off"),
    ],
)
def test_tls_that_is_not_offered(certificate: LocalCertificate, protocol: str, before: Serve, said: str) -> None:
    with server(before) as port:
        trouble = kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file, starttls=protocol))
    assert trouble.kind == "starttls"
    assert said in trouble.text


def test_a_certificate_of_a_stranger_is_shown(certificate: LocalCertificate, tmp_path: Path) -> None:
    with server(tls(make_authority(tmp_path, "Box CA", "Box Ltd"))) as port:
        trouble = kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file))
    assert trouble.kind == "certificate"
    assert read_chain(trouble.chain)[0].issuer == '"Box CA" of Box Ltd'


def test_a_certificate_that_is_over(tmp_path: Path) -> None:
    box = make_authority(tmp_path, "Box CA", "Box", begins=-20 * DAY, ends=-DAY)
    with server(tls(box)) as port:
        trouble = kind_of(lambda: secured("localhost", port, ca_file=box.ca_file))
    assert (trouble.kind, "expired" in trouble.text) == ("certificate", True)


def test_what_is_no_tls(certificate: LocalCertificate) -> None:
    with server(says(b"* OK plain text here\r\n", None)) as port:
        assert kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file)).kind == "tls"
    with server(lambda plain: plain.close()) as port:
        assert kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file)).kind == "tls"


def test_silence_is_bounded(certificate: LocalCertificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "STEP_LIMIT_S", 0.1)
    end = threading.Event()

    def keep_silent(_: socket.socket) -> None:
        end.wait(10.0)

    with server(keep_silent) as port:
        assert kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file)).kind == "timeout"
        trouble = kind_of(lambda: secured("localhost", port, ca_file=certificate.ca_file, starttls="imap"))
        assert (trouble.kind, "did not greet" in trouble.text) == ("timeout", True)
        end.set()


def test_a_trust_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    assert "not a readable PEM file" in kind_of(lambda: secured("localhost", 1, ca_file=tmp_path / "x.pem")).text
    assert "not a readable PEM file" in kind_of(lambda: secured("localhost", 1, ca_file=tmp_path / "y.pem")).text


# --- proxies


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://box:3128"}, ("HTTPS_PROXY", "box", 3128)),
        ({"https_proxy": "box:3128", "HTTPS_PROXY": "http://other:1"}, ("https_proxy", "box", 3128)),
        ({"ALL_PROXY": "http://box"}, ("ALL_PROXY", "box", 80)),
        ({"HTTPS_PROXY": "http://box:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://box:1", "no_proxy": "x.com, .microsoftonline.com"}, None),
        ({"HTTPS_PROXY": "http://box:1", "NO_PROXY": "online.com"}, ("HTTPS_PROXY", "box", 1)),
        ({"HTTP_PROXY": "http://box:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
    ],
)
def test_which_proxy_the_environment_names(environ: dict[str, str], found: tuple[str, str, int] | None) -> None:
    way = proxy_for("login.microsoftonline.com", environ)
    assert (way and (way.variable, way.host, way.port)) == found


def test_addresses_and_networks_in_no_proxy() -> None:
    environ = {"HTTPS_PROXY": "http://box:1", "NO_PROXY": "10.0.0.0/8"}
    assert proxy_for("10.1.2.3", environ) is None
    assert proxy_for("11.1.2.3", environ) is not None


@pytest.mark.parametrize("value", ["http://", "http://box:99999", "http://[::1", "socks5://box:1080"])
def test_what_is_no_proxy(value: str) -> None:
    assert kind_of(lambda: usable_way("login.test", {"HTTPS_PROXY": value})).kind == "proxy"


def test_a_proxys_password_is_sent_and_not_shown() -> None:
    way = proxy_for("login.test", {"HTTPS_PROXY": "http://me:hush%20hush@box:1"})
    assert way is not None
    assert way.authorization == "bWU6aHVzaCBodXNo"
    assert "hush" not in repr(way)
    assert "bWU6" not in repr(way)


def test_through_a_proxy_that_lets_through(identity: IdentityProvider) -> None:
    asked: list[str] = []

    def proxy(plain: socket.socket) -> None:
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            said += plain.recv(1)
        asked.append(said.decode().splitlines()[0])
        target = said.split()[1].decode().rpartition(":")
        with socket.create_connection(("127.0.0.1", int(target[2]))) as there:
            plain.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pour, args=(there, plain), daemon=True)
            back.start()
            pour(plain, there)
            back.join()

    def pour(source: socket.socket, sink: socket.socket) -> None:
        try:
            while octets := source.recv(4096):
                sink.sendall(octets)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    with server(proxy) as port:
        address = f"{identity.authority}/v2.0/.well-known/openid-configuration"
        answer = ask(address, ca_file=identity.ca_file, environ={"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
    assert answer.status == 200
    assert asked == [f"CONNECT {identity.base.removeprefix('https://')} HTTP/1.1"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Auth"), (b"", "nothing that a proxy says")],
)
def test_a_proxy_that_does_not(said: bytes, shown: str) -> None:
    with server(says(None, said)) as port:
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}"}
        trouble = kind_of(lambda: ask("https://login.test/x", ca_file=None, environ=environ))
    assert trouble.kind == "proxy"
    assert shown in trouble.text
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{free_port()}"}
    assert "refuses" in kind_of(lambda: ask("https://login.test/x", ca_file=None, environ=environ)).text


# --- questions


def test_an_answer_with_json_and_one_without(identity: IdentityProvider) -> None:
    found = ask(f"{identity.authority}/v2.0/.well-known/openid-configuration", ca_file=identity.ca_file, environ={})
    assert found.document is not None
    assert "token_endpoint" in found.document
    assert "date" in found.headers
    nothing = ask(f"{identity.base}/nothing/here?x=1", ca_file=identity.ca_file, environ={})
    assert (nothing.status, nothing.document) == (404, None)
    form = {"client_id": "x", "grant_type": "refresh_token"}
    refused = ask(f"{identity.authority}/oauth2/v2.0/token", ca_file=identity.ca_file, environ={}, form=form)
    assert refused.status == 400
    assert refused.document is not None
    assert refused.document["error_codes"] == [700016]


def test_an_answer_that_breaks_off_or_never_ends(certificate: LocalCertificate) -> None:
    def serve(octets: bytes) -> Serve:
        context = certificate.server_context()

        def answer(plain: socket.socket) -> None:
            with context.wrap_socket(plain, server_side=True) as line:
                line.recv(65_536)
                line.sendall(octets)

        return answer

    with server(serve(b"")) as port:
        assert (
            kind_of(lambda: ask(f"https://localhost:{port}/", ca_file=certificate.ca_file, environ={})).kind == "broken"
        )
    with server(serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 600_000)) as port:
        answer = ask(f"https://localhost:{port}/", ca_file=certificate.ca_file, environ={})
    assert len(answer.text) == lines.MAX_ANSWER_OCTETS


def test_the_chain_of_an_older_python() -> None:
    """Before 3.13 only the inner object tells the chain; without it there is the server's own certificate."""

    class Line:
        def getpeercert(self, binary_form: bool = False) -> bytes:
            return b"own"

    assert chain_of(Line()) == (b"own",)  # type: ignore[arg-type]
