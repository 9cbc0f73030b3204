"""Where the peer rows are shown: a daemon, its accounts in the configuration, and both ends of its wires. Not a test.

Accounts are signed in over the control socket, in a moment. Behind the daemon are the real servers of a `MailHost`, or
a scripted `Exchange` for those protocols where a test commands what upstream says.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from proxy.accounts.passwords import hash_password
from proxy.app.asking import ask_daemon
from proxy.demo.browser import sign_in
from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.identity import IdentityProvider
from tests.end_to_end.exchange import OFFERS, PATIENCE_S, Exchange, Part, Wire
from tests.end_to_end.ferry import APP, Ferry
from tests.end_to_end.stage import Mailbox
from tests.servers.child import open_folder, wait_until
from tests.servers.mailhost import DOMAIN, MailHost, Person, RememberingIdentity

HOSTNAME = "mail.test"
EHLO = f"EHLO {HOSTNAME}\r\n".encode()
SMTP_GREETING = b"220 outlook.test Microsoft ESMTP MAIL Service ready\r\n"
NAMESPACE = b'* NAMESPACE (("" "/")) NIL NIL\r\n'
MANY = 10_000  # no limit of an account is in the way
REDIRECT_URI = "http://localhost"
Settings = Mapping[str, object]


class StrictSignIn(RememberingIdentity):
    """The stand-in whose refresh tokens are good for one use, and whose access tokens live as long as a test says."""

    def __init__(self, folder: Path) -> None:
        IdentityProvider.__init__(self, folder, device_interval_s=1, single_use_refresh_tokens=True)
        self.secrets = set()
        self.open = threading.Event()
        """While it is clear, the token endpoint keeps everybody waiting."""
        self.open.set()

    def token(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        self.open.wait(PATIENCE_S)
        return super().token(tenant, form)

    def let_tokens_live(self, lifetime_s: int) -> None:
        """From now on."""
        self._grants.access_token_lifetime_s = lifetime_s

    def grants_since(self, mark: int) -> list[str]:
        """What the token endpoint was asked for behind the first `mark` requests."""
        return [grant for endpoint, grant in self.requests[mark:] if endpoint == "token"]


class SignInHost(MailHost):
    """A mail host without its mail servers."""

    identity: StrictSignIn

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.certificate = local_certificate(stack.enter_context(open_folder("mf-ca-")))
            self.identity = stack.enter_context(StrictSignIn(self.certificate.file.parent))
            self._stack = stack.pop_all()
        return self


def mailbox(number: int, password: str, *, shared_by: str = "") -> Mailbox:
    """Somebody's own mailbox, or one that another person signs in for."""
    address = f"berth{number}@{DOMAIN}"
    return Mailbox((address,), (password,), address, shared_by or address)


def own_mailbox(person: Person, password: str) -> Mailbox:
    return Mailbox((person.upn,), (password,), person.upn, person.upn)


class QuayFerry(Ferry):
    """A daemon with these mailboxes, further listeners and upstreams; each protocol has a `localhost` listener."""

    def __init__(
        self,
        folder: Path,
        host: MailHost,
        mailboxes: Sequence[Mailbox],
        upstreams: Mapping[str, Settings],
        listeners: Iterable[Settings] = (),
    ) -> None:
        self.mailboxes = mailboxes
        self._upstreams = upstreams
        self._listeners = listeners
        super().__init__(folder, host)
        self.config.chmod(0o600)
        self.passwords = {login: box.passwords[0] for box in mailboxes for login in box.logins}

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        identity = self.host.identity
        identity.add_app(self.application_id)
        app = {"application_id": self.application_id, "authority": identity.authority, "ca_file": str(identity.ca_file)}
        usual = [{"protocol": p, "address": "localhost", "port": n, "tls": "auto"} for p, n in self.ports.items()]
        document = {
            "state_dir": str(self.state_dir),
            "hostname": HOSTNAME,
            "page": "off",
            "log": {"level": "debug", "format": "text"},
            "apps": {APP: app},
            "accounts": [_account(box) for box in self.mailboxes],
            "listeners": [*usual, *self._listeners],
            "upstreams": self._upstreams,
        }
        return json.dumps(document, indent=2)  # which is YAML

    def sign_everybody_in(self) -> None:
        for box in {box.holder: box for box in self.mailboxes}.values():
            self.sign_in_at_once(box)

    def sign_in_at_once(self, box: Mailbox) -> None:
        sign_in_at_once(self, box)

    def ask(self, verb: str, **arguments: object) -> Any:
        """At the control socket, as the command line does."""
        return ask_daemon(self.state_dir, verb, arguments)

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `account list --json` shows, by login."""
        return {row["login"]: row for row in self.ask("accounts")["accounts"]}

    @property
    def pid(self) -> int:
        assert self.daemon is not None
        return self.daemon.process.pid

    def hang_up(self, count: int = 1) -> None:
        """SIGHUP, so often; each is answered before the next."""
        before = self._reloads()
        for number in range(count):
            os.kill(self.pid, signal.SIGHUP)
            wait_until("the reload", partial(self._reloads, more_than=before + number))

    def _reloads(self, more_than: int = 0) -> int:
        """How many there were; 0 if not more than so many."""
        count = len(self.log_lines("configuration reloaded"))
        return count if count > more_than else 0

    def cpu_s(self) -> float:
        """Processor time of the daemon until now, all threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_octets(self) -> int:
        """Its memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def connect(self, port: int | str, source: str = "127.0.0.1") -> Wire:
        """A mail program's connection to this port, or this protocol's, from this address."""
        number = self.ports[port] if isinstance(port, str) else port
        sock = socket.create_connection(("127.0.0.1", number), source_address=(source, 0))
        return Wire(sock, self._tls, server_name="localhost")

    def device_password(self, person: Person, name: str, protocols: str) -> str:
        """A further password, for this device alone."""
        first = self.passwords[person.upn]
        options = ("--name", name, "--protocols", protocols)
        made = self._printed_password(person, "password", person.upn, *options)
        self.passwords |= {person.upn: first, f"{person.upn} {name}": made}
        return made

    def says(
        self, protocol: str, box: Mailbox, source: str = "127.0.0.1", *, login: str = "", password: str = ""
    ) -> str:
        """A whole plain login: the reply, and for SMTP the one to MAIL too."""
        with closing(self.connect(protocol, source)) as wire:
            reply = log_in(wire, protocol, login or box.logins[0], password or box.passwords[0])
            if protocol == "smtp" and reply.startswith("235"):
                wire.send(f"MAIL FROM:<{box.address}>\r\n".encode())
                reply += f" / {wire.line().decode()}"
            return reply

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self.client_context()


def sign_in_at_once(ferry: Ferry, box: Mailbox) -> None:
    """Its holder signs in, as by `--paste`; the daemon runs."""
    identity = ferry.host.identity
    identity.sign_in_as(box.holder)
    begun = ask_daemon(ferry.state_dir, "begin_code", {"login": box.logins[0], "redirect_uri": REDIRECT_URI})
    came = sign_in(begun["address"], identity.ca_file)
    ask_daemon(ferry.state_dir, "finish_code", {"id": begun["id"], "query": came.fields})


def _account(box: Mailbox) -> Settings:
    return {
        "login": list(box.logins),
        "app": APP,
        "password": [{"name": f"p{n}", "hash": hash_password(password)} for n, password in enumerate(box.passwords)],
        "mailbox": box.address,
        "sign_in": box.holder,
        **dict.fromkeys(("imap_connections", "smtp_connections", "messages_per_minute"), MANY),
    }


def real_upstreams(host: MailHost) -> dict[str, Settings]:
    """Dovecot and Postfix."""
    ca = str(host.certificate.ca_file)
    return {
        "imap": {"host": "localhost", "port": host.dovecot.imap_port, "tls": "implicit", "ca_file": ca},
        "pop3": {"host": "localhost", "port": host.dovecot.pop3_port, "tls": "implicit", "ca_file": ca},
        "smtp": {"host": "localhost", "port": host.postfix.port, "tls": "starttls", "ca_file": ca},
    }


def scripted_upstream(exchange: Exchange, certificate: LocalCertificate, protocol: str) -> Settings:
    tls = "starttls" if exchange.starttls else "implicit"
    return {"host": "127.0.0.1", "port": exchange.port(protocol), "tls": tls, "ca_file": str(certificate.ca_file)}


@contextmanager
def scripted_quay(
    folder: Path, mailboxes: Sequence[Mailbox], listeners: Iterable[Settings] = (), *, starttls: str = ""
) -> Iterator[tuple[QuayFerry, Exchange, Exchange]]:
    """A running daemon, with everybody signed in, and what is behind it: with TLS at once, and with STARTTLS.

    `starttls` is the protocol that has the latter.
    """
    with SignInHost() as host:
        for holder in {box.holder for box in mailboxes}:
            shared = [box.address for box in mailboxes if box.holder == holder]
            host.identity.add_person(holder, also_may_open=shared)
        with Exchange(host.certificate, starttls=False) as at_once, Exchange(host.certificate, starttls=True) as later:
            upstreams = {
                protocol: scripted_upstream(later if protocol == starttls else at_once, host.certificate, protocol)
                for protocol in ("imap", "pop3", "smtp")
            }
            with closing(QuayFerry(folder, host, mailboxes, upstreams, listeners)) as ferry:
                ferry.serve()
                ferry.sign_everybody_in()
                yield ferry, at_once, later


@contextmanager
def many_descriptors() -> Iterator[None]:
    """As many as this process may have at all; afterwards as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def at_once(*calls: Any) -> list[Any]:
    """Each in a thread of its own; the results, in their order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def announce(exchange: Exchange, protocol: str, *parts: Part) -> list[Future[bytes]]:
    """The next connections at this port play these parts; nobody waits any more for those that did not come."""
    exchange.forget(protocol)
    return exchange.perform(protocol, parts)


# The mail program's side


def offer_login(wire: Wire, protocol: str, login: str, password: str) -> None:
    """From the greeting on, until the reply to the login is awaited."""
    greeting = wire.line()
    assert greeting.startswith((b"* OK", b"+OK", b"220")), greeting
    match protocol:
        case "imap":
            quoted = [f'"{word}"'.encode() for word in (login, password)]
            wire.send(b"a LOGIN " + b" ".join(quoted) + b"\r\n")
        case "pop3":
            wire.send(f"USER {login}\r\n".encode())
            assert wire.line().startswith(b"+OK")
            wire.send(f"PASS {password}\r\n".encode())
        case _:
            wire.send(b"EHLO client.test\r\n")
            smtp_reply(wire)
            wire.send(b"AUTH PLAIN " + plain(login, password) + b"\r\n")


def log_in(wire: Wire, protocol: str, login: str, password: str) -> str:
    """The same, and the reply, in which no secret stands."""
    offer_login(wire, protocol, login, password)
    while (line := wire.line()).startswith(b"* OK"):
        pass  # "still working"
    return line.decode()


def plain(login: str, password: str) -> bytes:
    """SASL PLAIN's response."""
    return base64.b64encode(f"\0{login}\0{password}".encode())


def smtp_reply(wire: Wire) -> list[bytes]:
    """All lines of a reply."""
    lines = [wire.line()]
    while lines[-1][3:4] == b"-":
        lines.append(wire.line())
    return lines


# Exchange's side


def xoauth2_user(response: bytes) -> str:
    """The name in an XOAUTH2 response (FACTS 2.1)."""
    found = re.fullmatch(rb"user=([^\x01]+)\x01auth=Bearer [^\x01]+\x01\x01", base64.b64decode(response))
    assert found, "this is no XOAUTH2 response"
    return found[1].decode()


def let_in(wire: Wire, protocol: str, *, starttls: bool = False) -> str:
    """A login at Exchange; the name that XOAUTH2 says. `starttls` is for SMTP: TLS is still to be started."""
    match protocol:
        case "imap":
            wire.send(b"* OK Microsoft Exchange IMAP4 service ready.\r\n")
            tag, _, response = wire.line().partition(b" AUTHENTICATE XOAUTH2 ")
            wire.send(tag + b" OK AUTHENTICATE completed.\r\n")
            capability, namespace = (wire.line().partition(b" ")[0] for _ in range(2))
            wire.send(b"* CAPABILITY IMAP4 IMAP4rev1 IDLE NAMESPACE\r\n" + capability + b" OK completed.\r\n")
            wire.send(NAMESPACE + namespace + b" OK completed.\r\n")
        case "pop3":
            wire.send(b"+OK The Microsoft Exchange POP3 service is ready.\r\n")
            wire.expect(b"AUTH XOAUTH2\r\n")
            wire.send(b"+ \r\n")
            response = wire.line()
            wire.send(b"+OK User successfully authenticated.\r\n")
        case _:
            wire.send(SMTP_GREETING)
            if starttls:
                secure(wire, *OFFERS["smtp"], "STARTTLS")
            wire.expect(EHLO)
            wire.send(ehlo_answer(*OFFERS["smtp"]))
            wire.expect(b"AUTH XOAUTH2\r\n")
            wire.send(b"334 \r\n")
            response = wire.line()
            wire.send(b"235 2.7.0 Authentication successful\r\n")
    return xoauth2_user(response)


def ehlo_answer(*keywords: str) -> bytes:
    *lines, last = ["outlook.test Hello", *keywords]
    return "".join(f"250-{line}\r\n" for line in lines).encode() + f"250 {last}\r\n".encode()


def secure(wire: Wire, *offers: str) -> None:
    """SMTP's way to TLS, from EHLO on, which these lines answer."""
    wire.expect(EHLO)
    wire.send(ehlo_answer(*offers))
    wire.expect(b"STARTTLS\r\n")
    wire.send(b"220 2.0.0 SMTP server ready\r\n")
    wire.start_tls()


def visit(protocol: str, *, starttls: bool = False) -> Part:
    """A login and, by SMTP, one MAIL; the result is the name that XOAUTH2 said."""

    def part(wire: Wire) -> bytes:
        user = let_in(wire, protocol, starttls=starttls)
        if protocol == "smtp":
            assert wire.line().startswith(b"MAIL FROM:")
            wire.send(b"250 2.1.0 Sender OK\r\n")
        wire.rest()
        return user.encode()

    return part
