"""Connections as the doctor makes them: TCP, the way through a proxy, STARTTLS, TLS; and one question over HTTPS.

They block, each step with its own limit, and end in a word for what went wrong. What it is not: the connections of the
daemon (`proxy/network`), which work otherwise, but to the same hosts with the same trust. The checks call it from
threads.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

STEP_LIMIT_S = 8.0  # for each of: to connect, to shake hands, to be answered
MAX_LINE_OCTETS = 4_096  # of a greeting or a reply
MAX_REPLY_LINES = 64  # Exchange's longest, to EHLO, has ten
MAX_ANSWER_OCTETS = 262_144  # of the sign-in service; its longest, the discovery document, has two KiB
USER_AGENT = "mailferry-doctor"
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # in the order in which requests looks
_NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")


class LineTrouble(Exception):
    """A connection that did not come about. `kind` is one of: name, refused, timeout, unreachable, proxy, starttls,
    tls, certificate, broken. `text` says it in words that follow the host's name."""

    def __init__(self, kind: str, text: str, chain: tuple[bytes, ...] = ()) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text
        self.chain = chain
        """What was shown in place of a good certificate (DER)."""


@dataclass(frozen=True, slots=True)
class Way:
    """The proxy that the environment names for a host."""

    variable: str
    host: str
    port: int
    authorization: str = field(default="", repr=False)
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    document: Mapping[str, Any] | None = field(default=None, repr=False)
    """JSON, if it was that."""
    text: str = field(default="", repr=False)


def proxy_for(host: str, environ: Mapping[str, str]) -> Way | None:
    """The proxy for https to this host, as requests (and so msal) takes it from the environment.

    Raises:
        ValueError: the variable's value is no proxy's address; its argument is the variable's name.
    """
    excluded = next((environ[name] for name in _NO_PROXY_VARIABLES if environ.get(name)), "")
    if any(_covers(entry.strip(), host) for entry in excluded.split(",")):
        return None
    variable = next((name for name in _PROXY_VARIABLES if environ.get(name)), None)
    if variable is None:
        return None
    value = environ[variable]
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ValueError(variable) from None
    if not parts.hostname:
        raise ValueError(variable)
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""
    return Way(variable, parts.hostname, port, base64.b64encode(pair.encode()).decode() if pair else "", parts.scheme)


def _covers(entry: str, host: str) -> bool:
    """An entry of NO_PROXY: `*`, a name and all below it, an address, or a network of them."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    name = entry.partition(":")[0].lstrip(".").casefold()
    return entry == "*" or bool(name and (host.casefold() == name or host.casefold().endswith(f".{name}")))


def connect(host: str, port: int, family: socket.AddressFamily | None = None) -> socket.socket:
    """A TCP connection to the first address that answers; of this family alone, if one is given.

    Raises:
        LineTrouble: name, refused, timeout or unreachable.
    """
    try:
        found = socket.getaddrinfo(host, port, family or socket.AF_UNSPEC, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LineTrouble("name", f"has no address ({getattr(error, 'strerror', None) or 'not a name'})") from None
    last: OSError = OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    for each_family, kind, protocol, _, address in found[:4]:
        try:
            made = socket.socket(each_family, kind, protocol)
        except OSError as error:
            last = error
            continue
        made.settimeout(STEP_LIMIT_S)
        try:
            made.connect(address)
        except OSError as error:
            made.close()
            last = error
        else:
            return made
    raise _untied(last)


def secured(host: str, port: int, *, ca_file: Path | None, starttls: str = "", way: Way | None = None) -> ssl.SSLSocket:
    """A verified TLS connection. `starttls` names the protocol that asks for it in plain text first.

    Raises:
        LineTrouble: see there; with the chain that was shown when it is `certificate`.
    """
    try:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError):
        raise LineTrouble("broken", f"cannot be verified: {ca_file} is not a readable PEM file") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    plain = _prepared(host, port, starttls, way)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise LineTrouble("certificate", error.verify_message.rstrip("."), _shown(host, port, starttls, way)) from None
    except TimeoutError:
        plain.close()
        raise LineTrouble("timeout", f"did not finish the TLS handshake within {STEP_LIMIT_S:g} s") from None
    except ssl.SSLError as error:
        plain.close()
        reason = (error.reason or "no handshake").lower().replace("_", " ")
        raise LineTrouble("tls", f"does not speak TLS as it should ({reason})") from None
    except OSError as error:
        plain.close()
        raise LineTrouble("tls", f"broke off the TLS handshake ({_reason(error)})") from None


def ask(
    address: str,
    *,
    ca_file: Path | None,
    environ: Mapping[str, str],
    form: Mapping[str, str] | None = None,
) -> Answered:
    """One GET of this https address, or a POST of this form, and its answer, of whatever status.

    Raises:
        LineTrouble: there is none.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    with contextlib.closing(secured(host, parts.port or 443, ca_file=ca_file, way=usable_way(host, environ))) as line:
        connection = http.client.HTTPConnection(host, timeout=STEP_LIMIT_S)
        connection.sock = line
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": parts.netloc, "User-Agent": USER_AGENT, "Accept": "application/json", "Connection": "close"}
        try:
            if form is None:
                connection.request("GET", target, headers=headers)
            else:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request("POST", target, urlencode(form).encode(), headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_OCTETS)
        except TimeoutError:
            raise LineTrouble("timeout", f"did not answer within {STEP_LIMIT_S:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise LineTrouble("broken", f"broke off before it answered ({_reason(error)})") from None
    headers = {name.casefold(): value for name, value in answer.getheaders()}
    return Answered(answer.status, headers, _document(body), body.decode("utf-8", "replace"))


def usable_way(host: str, environ: Mapping[str, str]) -> Way | None:
    """Raises: LineTrouble: the proxy's address makes no sense, or is of a kind that mailferry cannot use."""
    try:
        way = proxy_for(host, environ)
    except ValueError as error:
        raise LineTrouble("proxy", f"is to be reached by a proxy, but ${error} is no proxy's address") from None
    if way is not None and way.scheme not in ("http", "https"):
        raise LineTrouble("proxy", f"is to be reached by a {way.scheme} proxy (${way.variable}), which is not served")
    return way


def _prepared(host: str, port: int, starttls: str, way: Way | None) -> socket.socket:
    """A connection on which TLS comes next. Raises: LineTrouble."""
    plain = _through(way, host, port) if way else connect(host, port)
    try:
        if starttls:
            _ask_for_tls(plain, starttls)
    except TimeoutError:
        plain.close()
        raise LineTrouble("timeout", f"did not greet within {STEP_LIMIT_S:g} s") from None
    except OSError as error:
        plain.close()
        raise LineTrouble("broken", f"broke off before TLS ({_reason(error)})") from None
    except LineTrouble:
        plain.close()
        raise
    return plain


def _through(way: Way, host: str, port: int) -> socket.socket:
    """A connection by CONNECT. Raises: LineTrouble: proxy."""
    try:
        plain = connect(way.host, way.port)
    except LineTrouble as trouble:
        text = f"is to be reached by the proxy {way.host}:{way.port} (${way.variable}), which {trouble.text}"
        raise LineTrouble("proxy", text) from None
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}", f"User-Agent: {USER_AGENT}"]
    if way.authorization:
        lines.append(f"Proxy-Authorization: Basic {way.authorization}")
    said = b""
    try:
        plain.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in said and len(said) < MAX_LINE_OCTETS and (more := plain.recv(1)):
            said += more
    except OSError as error:
        said = _reason(error).encode()
    found = re.match(rb"HTTP/1\.[01] (\d{3})[^\r\n]*", said)
    if found is None or found[1] != b"200":
        plain.close()
        shown = found[0].decode("ascii", "replace") if found else "nothing that a proxy says"
        text = f"is to be reached by the proxy {way.host}:{way.port} (${way.variable}), which said: {shown}"
        raise LineTrouble("proxy", text)
    return plain


def _ask_for_tls(plain: socket.socket, protocol: str) -> None:
    """STARTTLS in this protocol. Raises: LineTrouble: starttls, OSError."""
    lines = _lines(plain)
    match protocol:
        case "smtp":
            _expect(lines, "220")
            plain.sendall(b"EHLO [127.0.0.1]\r\n")
            _expect(lines, "250")
            plain.sendall(b"STARTTLS\r\n")
            _expect(lines, "220")
        case "imap":
            _expect(lines, "* OK")
            plain.sendall(b"F1 STARTTLS\r\n")
            _expect(lines, "F1 OK")
        case _:
            _expect(lines, "+OK")
            plain.sendall(b"STLS\r\n")
            _expect(lines, "+OK")


def _expect(lines: Iterator[str], start: str) -> None:
    for _, line in zip(range(MAX_REPLY_LINES), lines, strict=False):
        if not line.startswith(start):
            raise LineTrouble("starttls", f"does not offer TLS; it said: {line[:100]!r}")
        if line[len(start) : len(start) + 1] != "-":
            return
    raise LineTrouble("starttls", "broke off before it offered TLS")


def _lines(plain: socket.socket) -> Iterator[str]:
    """Octet by octet, since what follows the last line is TLS."""
    while True:
        line = b""
        while not line.endswith(b"\n"):
            octet = plain.recv(1)
            if not octet or len(line) > MAX_LINE_OCTETS:
                return
            line += octet
        yield "".join(c if c.isprintable() else "?" for c in line.decode("ascii", "replace").rstrip("\r\n"))


def _shown(host: str, port: int, starttls: str, way: Way | None) -> tuple[bytes, ...]:
    """The chain that is shown there, asked for once more without verifying; nothing is said over that connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        contextlib.suppress(OSError, LineTrouble),
        context.wrap_socket(_prepared(host, port, starttls, way), server_hostname=host) as line,
    ):
        return chain_of(line)
    return ()


def chain_of(line: ssl.SSLSocket) -> tuple[bytes, ...]:
    """The certificates that the server showed (DER), its own first; only that one where Python gives no more."""
    inner: Any = getattr(line, "_sslobj", None)
    read = getattr(line, "get_unverified_chain", None) or getattr(
        inner, "get_unverified_chain", None
    )  # 3.13, or before
    if read is not None:
        with contextlib.suppress(Exception):
            chain = read() or ()
            return tuple(
                each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain
            )
    own = line.getpeercert(binary_form=True)
    return (own,) if own else ()


def _document(body: bytes) -> Mapping[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(body)
        if isinstance(document, dict):
            return document
    return None


def _untied(error: OSError) -> LineTrouble:
    match error:
        case TimeoutError():
            return LineTrouble("timeout", f"does not answer within {STEP_LIMIT_S:g} s")
        case ConnectionRefusedError():
            return LineTrouble("refused", "refuses the connection")
        case _:
            return LineTrouble("unreachable", f"cannot be reached ({_reason(error)})")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
