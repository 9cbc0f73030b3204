"""How each peer is set up, started and weighed: the proxies of SPEED.md before one and the same upstream.

What it is: for every peer its configuration for one account, its process, and what /proc says of that process and its
children. What it is not: a measurement (`client.py`). `__main__` calls it. All listen on loopback, in plain text, and
trust the bench's own authority; every account's login is `LOGIN`, with `PASSWORD`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.certificates import LocalCertificate

from .client import Door

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-bench"
EMAILPROXY = "emailproxy==2026.7.3"  # the release that SPEED and PEERS measured
APPLICATION_ID, SECRET = "3c1b1c5e-0d3f-4a55-8a0e-0b8c1f2f7d10", "bench-secret"
LOGIN, PASSWORD = "bench@contoso.com", "bench-password"
LOGIN_COMMAND = f'LOGIN "{LOGIN}" "{PASSWORD}"'.encode()
STARTS_WITHIN_S = 30.0
STOPS_WITHIN_S = 10.0
SESSIONS = 12_000  # what every peer is told to allow
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ground:
    """What all peers share: a folder, the certificate, and where upstream and sign-in service are."""

    folder: Path
    certificate: LocalCertificate
    upstream_port: int
    authority: str

    @property
    def client_context(self) -> ssl.SSLContext:
        return self.certificate.client_context()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Peer:
    """One program under measurement: `start`, `stop`, and its weight; `doors` are the rows that lead through it."""

    name = ""
    idle_logs_in = True
    """Its logins are cheap enough to open thousands."""
    openers = 32
    """How many connections at once it accepts without losing some."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.folder = ground.folder / self.name
        self.folder.mkdir()
        self.folder.chmod(0o711)  # Dovecot's own users pass through
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def prepare() -> bool:
        """Install what it needs; False if it cannot run here."""
        return True

    def doors(self) -> dict[str, Door]:
        raise NotImplementedError

    @staticmethod
    def version() -> str:
        raise NotImplementedError

    def command(self) -> tuple[list[str], dict[str, str]]:
        """What to run, and further environment."""
        raise NotImplementedError

    def start(self) -> None:
        """Returns once all doors are open. Raises: SystemExit: it does not start; its log is shown."""
        command, environment = self.command()
        log = self.folder / "log"
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + STARTS_WITHIN_S
        for door in self.doors().values():
            while not _is_open(door.port):
                if self._process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    sys.exit(f"{self.name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            for pid in self._pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def cpu_s(self) -> float:
        """CPU seconds of the process and its children so far, in the kernel's ticks (10 ms)."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                ticks += sum(int(field) for field in _stat(pid)[11:15])  # utime, stime, and those of ended children
        return ticks / TICKS_PER_S

    def rss(self) -> int:
        """Octets of resident memory of the process and its children."""
        pages = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _pids(self) -> list[int]:
        if self._process is None:
            return []
        pids = [self._process.pid]
        for pid in pids:  # grows while it runs
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    pids += [int(child) for child in task.read_text().split()]
        return pids


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: index 0 is the state (proc(5) field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Direct(Peer):
    """No proxy: a bare TLS client at the upstream. Its CPU is the client's own: the limit."""

    name = "direct"

    def doors(self) -> dict[str, Door]:
        sasl = base64.b64encode(f"user={LOGIN}\1auth=Bearer bench\1\1".encode())
        login = b"AUTHENTICATE XOAUTH2 " + sasl
        return {self.name: Door(self.ground.upstream_port, "implicit", self.ground.client_context, login)}

    @staticmethod
    def version() -> str:
        return ssl.OPENSSL_VERSION

    def start(self) -> None:
        pass

    def cpu_s(self) -> float:
        return time.process_time()

    def rss(self) -> int:
        return 0


class Dovecot(Peer):
    """Debian's Dovecot as an IMAP proxy: static passdb, XOAUTH2 upstream, its high-performance login processes."""

    name = "dovecot"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._port = free_port()

    @staticmethod
    def prepare() -> bool:
        """Whether it can run: it is installed, and we may start it."""
        return shutil.which("dovecot") is not None and os.geteuid() == 0

    def doors(self) -> dict[str, Door]:
        return {self.name: Door(self._port, "off", None, LOGIN_COMMAND)}

    @staticmethod
    def version() -> str:
        return subprocess.run(["dovecot", "--version"], capture_output=True, text=True, check=True).stdout.split()[0]

    def command(self) -> tuple[list[str], dict[str, str]]:
        file, port = self.folder / "dovecot.conf", self.ground.upstream_port
        file.write_text(f"""\
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{self.ground.certificate.file}
ssl_key = <{self.ground.certificate.key}
ssl_ca = <{self.ground.certificate.ca_file}
ssl_require_crl = no
disable_plaintext_auth = no
auth_mechanisms = plain
login_trusted_networks = 127.0.0.0/8
mail_max_userip_connections = {SESSIONS}
default_client_limit = {SESSIONS}
default_vsz_limit = 0
passdb {{
  driver = static
  args = password={PASSWORD} proxy=y host=127.0.0.1 port={port} ssl=yes proxy_mech=xoauth2 pass=bench
}}
service imap-login {{
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = {SESSIONS}
  inet_listener imap {{
    port = {self._port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service auth {{
  client_limit = {SESSIONS}
}}
service anvil {{
  client_limit = {SESSIONS}
}}
""")
        return ["dovecot", "-F", "-c", str(file)], {}


class Emailproxy(Peer):
    """PyPI's emailproxy in a venv of its own, with the client-credentials flow: no browser."""

    name = "emailproxy"
    idle_logs_in = False
    openers = 4  # it listens with a backlog of 5

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._port = free_port()

    @staticmethod
    def prepare() -> bool:
        """Install it into `VENV` if it is not there; False when PyPI cannot be reached."""
        if (VENV / "bin" / "emailproxy").exists():
            return True
        print(f"installing {EMAILPROXY} into {VENV.name}/ ...", file=sys.stderr)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        commands = ([sys.executable, "-m", "venv", str(VENV)], [*pip, EMAILPROXY])
        VENV.mkdir(exist_ok=True)
        (VENV / ".gitignore").write_text("*\n")
        return all(subprocess.run(command, check=False).returncode == 0 for command in commands)

    def doors(self) -> dict[str, Door]:
        return {self.name: Door(self._port, "off", None, LOGIN_COMMAND)}

    @staticmethod
    def version() -> str:
        return EMAILPROXY.partition("==")[2]

    def command(self) -> tuple[list[str], dict[str, str]]:
        file = self.folder / "emailproxy.config"
        file.write_text(f"""\
[Server setup]
[IMAP-{self._port}]
server_address = 127.0.0.1
server_port = {self.ground.upstream_port}
local_address = 127.0.0.1

[Account setup]
[{LOGIN}]
token_url = {self.ground.authority}/oauth2/v2.0/token
oauth2_scope = https://outlook.office365.com/.default
oauth2_flow = client_credentials
redirect_uri = http://localhost
client_id = {APPLICATION_ID}
client_secret = {SECRET}
""")
        program = VENV / "bin" / "emailproxy"
        log = self.folder / "own.log"
        return (
            [str(program), "--no-gui", "--config-file", str(file), "--log-file", str(log)],
            {"SSL_CERT_FILE": str(self.ground.certificate.ca_file)},
        )


class Mailferry(Peer):
    """The daemon of this tree, as a child process: one plain listener, one that speaks everything."""

    name = "mailferry"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._plain, self._any = free_port(), free_port()

    def doors(self) -> dict[str, Door]:
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False  # the daemon makes its own authority: its cost is measured here, not its name
        unverified.verify_mode = ssl.CERT_NONE
        return {
            self.name: Door(self._plain, "off", None, LOGIN_COMMAND),
            "mailferry, TLS": Door(self._any, "implicit", unverified, LOGIN_COMMAND),
            "mailferry, STARTTLS": Door(self._any, "starttls", unverified, LOGIN_COMMAND),
        }

    @staticmethod
    def version() -> str:
        run = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "?"

    def command(self) -> tuple[list[str], dict[str, str]]:
        ca_file = str(self.ground.certificate.ca_file)
        upstream = {"host": "127.0.0.1", "port": self.ground.upstream_port, "tls": "implicit", "ca_file": ca_file}
        config = {
            "state_dir": str(self.folder / "state"),
            "page": "off",
            "listeners": [
                {"protocol": "imap", "address": "127.0.0.1", "port": self._plain, "tls": "off"},
                {"protocol": "imap", "address": "127.0.0.1", "port": self._any, "tls": "auto"},
            ],
            "apps": {
                "bench": {
                    "application_id": APPLICATION_ID,
                    "client_secret": SECRET,
                    "flow": "app_only",
                    "authority": self.ground.authority,
                    "ca_file": ca_file,
                }
            },
            "accounts": [
                {"login": LOGIN, "app": "bench", "password": _phc(PASSWORD), "imap_connections": 10_000},
            ],
            "upstreams": {"imap": upstream},
        }
        file = self.folder / "config.yaml"
        file.write_text(json.dumps(config, indent=2))  # JSON is YAML
        file.chmod(0o600)
        return [sys.executable, "-m", "proxy", "--config", str(file), "serve"], {}


def _phc(password: str) -> str:
    """A scrypt hash as PRODUCT section 3 wants it, with the default's cost."""
    salt = os.urandom(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    text = [base64.b64encode(part).rstrip(b"=").decode() for part in (salt, digest)]
    return f"$scrypt$ln=14,r=8,p=1${text[0]}${text[1]}"
