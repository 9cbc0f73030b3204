"""A daemon with many accounts before real mail servers, on which faults are let loose. Not a test.

What it is: the servers (strict about refresh tokens if wanted, and able to be killed), the daemon with its accounts
signed in, and ways to start it in less than a whole machine. What it is not: a mail program (`programs.py`), a fault,
or a judgement.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from proxy.app.asking import ask_daemon
from proxy.demo import browser
from proxy.demo.certificates import local_certificate
from proxy.demo.identity import IdentityProvider
from tests.end_to_end.ferry import APP, COMMAND, ROOT, Ferry
from tests.servers.child import Child, open_folder
from tests.servers.dovecot import Dovecot
from tests.servers.mailhost import DOMAIN, MailHost, Person, RememberingIdentity
from tests.servers.postfix import Postfix

PASSWORD = "still-here-after-the-storm"
SCRYPT = {"n": 1 << 10, "r": 1, "p": 1}  # as cheap as the configuration allows: hashing is not what is tried here
TOKEN_LIFE_S = 3600
PROTOCOLS = ("imap", "pop3", "smtp")

# One login process for all, instead of Debian's hundred with one connection each.
_MANY_SESSIONS = """
default_client_limit = 4000
service imap-login {
  service_count = 0
  process_min_avail = 1
  client_limit = 2000
}
service imap {
  process_limit = 1200
}
"""


class Identity(RememberingIdentity):
    """The sign-in service; a strict one takes each refresh token once."""

    def __init__(self, folder: Path, *, access_token_lifetime_s: int, strict: bool) -> None:
        IdentityProvider.__init__(
            self,
            folder,
            access_token_lifetime_s=access_token_lifetime_s,
            device_interval_s=1,
            single_use_refresh_tokens=strict,
        )
        self.secrets: set[str] = set()

    def be_strict(self, strict: bool) -> None:
        """Whether a refresh token is good for one refresh only."""
        with self._lock:
            self._grants.single_use_refresh_tokens = strict

    @contextmanager
    def short_lived_tokens(self) -> Iterator[None]:
        """Those issued inside the `with` end at once, so that each login refreshes."""
        self.issue_for(1)
        try:
            yield
        finally:
            self.issue_for(TOKEN_LIFE_S)

    def refreshes(self, since: int = 0) -> int:
        """How many there were since the request of this number."""
        return sum(grant == "refresh_token" for _, grant in self.requests[since:])


class MortalDovecot(Dovecot):
    def kill(self) -> None:
        """SIGKILL to all its processes; `revive` starts it again on what is there."""
        assert self._child is not None
        self._child.kill()

    def revive(self) -> None:
        self.__enter__()


class MortalPostfix(Postfix):
    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    def revive(self) -> None:
        self.__enter__()


class Host(MailHost):
    """A context manager: sign-in service, Dovecot and Postfix, all able to fail."""

    identity: Identity
    dovecot: MortalDovecot
    postfix: MortalPostfix

    def __init__(self, *, access_token_lifetime_s: int = TOKEN_LIFE_S, strict: bool = False) -> None:
        super().__init__(access_token_lifetime_s=access_token_lifetime_s)
        self._strict = strict

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.certificate = local_certificate(stack.enter_context(open_folder("mf-ca-")))
            folder = self.certificate.file.parent
            self.identity = stack.enter_context(
                Identity(folder, access_token_lifetime_s=self._lifetime_s, strict=self._strict)
            )
            self.dovecot = MortalDovecot(
                stack.enter_context(open_folder("mf-dc-")), self.certificate, self.identity.introspection_url
            )
            with (self.dovecot.folder / "dovecot.conf").open("a") as configuration:
                configuration.write(_MANY_SESSIONS)
            stack.enter_context(self.dovecot)
            self.postfix = MortalPostfix(
                stack.enter_context(open_folder("mf-pf-")), self.certificate, self.dovecot, DOMAIN
            )
            stack.enter_context(self.postfix)
            self._stack = stack.pop_all()
        return self


class Fleet(Ferry):
    """A ferry whose configuration names these people from the start.

    `ports` leads to the upstreams by other ports than their own, through a strait. `before` is put before the
    daemon's command (unshare, prlimit); `variables` are its further environment. Both may be changed between starts.
    """

    def __init__(
        self,
        folder: Path,
        host: Host,
        people: Sequence[Person],
        *,
        ports: Mapping[str, int] | None = None,
        level: str = "debug",
    ) -> None:
        self.people = list(people)
        self.before: tuple[str, ...] = ()
        self.variables: dict[str, str] = {}
        self.identity = host.identity
        self._level = level
        self._upstream_ports = {
            "imap": host.dovecot.imap_port,
            "pop3": host.dovecot.pop3_port,
            "smtp": host.postfix.port,
            **(ports or {}),
        }
        super().__init__(folder, host)
        self.config.chmod(0o600)  # hashes stand there
        self.passwords.update((person.upn, PASSWORD) for person in people)

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        identity, ca = self.host.identity, str(self.host.certificate.ca_file)
        identity.add_app(self.application_id)
        app = {"application_id": self.application_id, "authority": identity.authority, "ca_file": str(identity.ca_file)}
        many = dict.fromkeys(("imap_connections", "smtp_connections", "messages_per_minute"), 1000)
        hashed = _hash(PASSWORD)
        document = {
            "state_dir": str(self.state_dir),
            "page": "off",
            "log": {"level": self._level, "format": "text"},
            "apps": {APP: app},
            "accounts": [{"login": one.upn, "app": APP, "password": hashed, **many} for one in self.people],
            "listeners": [
                {"protocol": protocol, "address": "localhost", "port": port, "tls": "auto"}
                for protocol, port in self.ports.items()
            ],
            "upstreams": {
                protocol: {
                    "host": "localhost",
                    "port": self._upstream_ports[protocol],
                    "tls": "starttls" if protocol == "smtp" else "implicit",
                    "ca_file": ca,
                }
                for protocol in PROTOCOLS
            },
        }
        return json.dumps(document)  # which is YAML

    def serve(self) -> None:
        command = [*self.before, *COMMAND, "--config", str(self.config), "serve"]
        environment = {**self.environment, **self.variables}
        self.daemon = Child("mailferry", command, self.log_file, environment=environment, folder=ROOT)
        self.daemon.wait_ready(lambda: all(map(_greets, self.ports.values())))

    def stop(self) -> int:
        """SIGTERM, and the exit code; `judge` shows the log if need be."""
        assert self.daemon is not None
        daemon, self.daemon = self.daemon, None
        return daemon.stop()

    def kill_if_left(self) -> None:
        if self.daemon is not None:
            self.kill()

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        return ask_daemon(self.state_dir, verb, arguments)

    def sign_everybody_in(self) -> None:
        """As the page does it, without commands; the daemon serves."""
        for person in self.people:
            self.identity.sign_in_as(person.upn)
            begun = self.ask("begin_code", login=person.upn, redirect_uri="http://localhost")
            query = browser.sign_in(begun["address"], self.identity.ca_file).fields
            self.ask("finish_code", id=begun["id"], query=query)

    def conditions(self) -> dict[str, str]:
        """What is said of each account, by login."""
        return {row["login"]: str(row["state"]) for row in self.ask("accounts")["accounts"]}

    def awaiting_sign_in(self) -> list[str]:
        """Whose grant is gone."""
        return [login for login, state in self.conditions().items() if state == "sign_in_needed"]


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a fleet; its path is short, since a Unix socket's is limited."""
    with open_folder("mf-fl-") as folder:
        folder.chmod(0o700)
        yield folder


def _greets(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2.0) as client:
            return bool(client.recv(1))
    except OSError:
        return False


def _hash(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, dklen=32, **SCRYPT)
    salt_text, digest_text = (base64.b64encode(octets).decode().rstrip("=") for octets in (salt, digest))
    return f"$scrypt$ln=10,r=1,p=1${salt_text}${digest_text}"
