"""Debian's Dovecot as a throw-away server: the mailboxes behind the proxy in tests (FACTS 2).

IMAP and POP3 with TLS at once, as Exchange Online has them, and with STARTTLS on ports of their own; LMTP for
delivery; XOAUTH2 and nothing else, each token looked up at the sign-in service over TLS. It also verifies the tokens
that Postfix receives (`auth_socket`). Configuration, users, mail and sockets are in one temporary folder; nothing of
the system's own Dovecot is read or written. 2.3 (Debian 12) and 2.4 (Debian 13). Not a test: `test_servers.py`
proves it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.demo.certificates import LocalCertificate
from tests.servers.child import Child, ServerFailed, free_port, program, tail

MAIL_USER = "mail"  # exists on every Debian, and is not root: Dovecot opens no mailbox as root
PROBE_TIMEOUT_S = 2.0


class Dovecot:
    """A context manager: started and answering inside the `with`.

    `folder` must be open to other system users (`child.open_folder`). The sign-in service behind `introspection_url`
    (RFC 7662) is trusted through the same authority that `certificate` comes from.
    """

    def __init__(self, folder: Path, certificate: LocalCertificate, introspection_url: str) -> None:
        if os.geteuid() != 0:
            raise ServerFailed("real mail servers are started as root: run the tests as root, as CI does")
        self.folder = folder
        self.imap_port, self.pop3_port = free_port(), free_port()
        self.imap_starttls_port, self.pop3_starttls_port = free_port(), free_port()
        self.lmtp_socket = folder / "run" / "deliver"
        self.auth_socket = folder / "run" / "auth-postfix"
        self.log = folder / "dovecot.log"
        self._program = program("dovecot")
        self._child: Child | None = None
        self._write(certificate, introspection_url)

    def add_mailbox(self, address: str) -> None:
        """An empty mailbox, which the person of the same name may open."""
        owner = pwd.getpwnam(MAIL_USER)
        home = self.maildir(address).parent
        home.mkdir(parents=True)
        os.chown(home, owner.pw_uid, owner.pw_gid)
        # A file for each: of a common one, a change within the same second may go unseen.
        (self.folder / "users" / address).write_text(f"{address}::{owner.pw_uid}:{owner.pw_gid}::{home}::\n")

    def maildir(self, address: str) -> Path:
        return self.folder / "mail" / address / "Maildir"

    def messages(self, address: str) -> list[bytes]:
        """What lies in the inbox now, oldest first, with CRLF line ends; read from disk, not by IMAP."""
        files = [file for part in ("new", "cur") for file in (self.maildir(address) / part).glob("*")]
        files.sort(key=lambda file: [int(digits) for digits in re.findall(r"\d+", file.name.split(",")[0])])
        return [file.read_bytes().replace(b"\n", b"\r\n") for file in files]

    def empty(self, address: str) -> None:
        """Remove all messages, as if they had never been; nobody may be logged in meanwhile."""
        shutil.rmtree(self.maildir(address), ignore_errors=True)

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def __enter__(self) -> Self:
        command = [self._program, "-F", "-c", str(self.folder / "dovecot.conf")]
        self._child = Child("dovecot", command, self.folder / "dovecot.out")
        self._child.wait_ready(lambda: all(map(_greets, (self.imap_port, self.pop3_port))), self.log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(tail(self.log))
        if self._child is not None:
            self._child.stop()

    def _write(self, certificate: LocalCertificate, introspection_url: str) -> None:
        version = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        values = {
            "folder": self.folder,
            "imap_port": self.imap_port,
            "pop3_port": self.pop3_port,
            "imap_starttls_port": self.imap_starttls_port,
            "pop3_starttls_port": self.pop3_starttls_port,
            "certificate": certificate.file,
            "key": certificate.key,
            "ca_file": certificate.ca_file,
            "introspection_url": introspection_url,
        }
        settings = (_SETTINGS_2_3 if version.startswith("2.3.") else _SETTINGS_2_4) + _SERVICES
        (self.folder / "dovecot.conf").write_text(settings % values)
        (self.folder / "oauth2.conf").write_text(_OAUTH2_2_3 % values)
        (self.folder / "mail").mkdir()
        (self.folder / "users").mkdir()


def _greets(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), PROBE_TIMEOUT_S) as plain,
            context.wrap_socket(plain) as secured,
        ):
            return bool(secured.recv(1))
    except OSError:
        return False


# Dovecot slows down everyone on an address after a failed login (the penalty), and waits before it says no: both are
# off, since all of our tests come from one address and many of them fail on purpose.
_SERVICES = """\
base_dir = %(folder)s/run
state_dir = %(folder)s/state
log_path = %(folder)s/dovecot.log
listen = 127.0.0.1
protocols = imap pop3 lmtp
first_valid_uid = 1
first_valid_gid = 1
auth_mechanisms = xoauth2
auth_failure_delay = 0
auth_verbose = yes
mail_max_userip_connections = 200
service imap-login {
  inet_listener imap {
    port = %(imap_starttls_port)d
  }
  inet_listener imaps {
    port = %(imap_port)d
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %(pop3_starttls_port)d
  }
  inet_listener pop3s {
    port = %(pop3_port)d
    ssl = yes
  }
}
service lmtp {
  unix_listener deliver {
    mode = 0666
  }
}
service auth {
  unix_listener auth-postfix {
    mode = 0666
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""

_SETTINGS_2_3 = """\
mail_location = maildir:~/Maildir
ssl = required
ssl_cert = <%(certificate)s
ssl_key = <%(key)s
passdb {
  driver = oauth2
  mechanisms = xoauth2
  args = %(folder)s/oauth2.conf
}
userdb {
  driver = passwd-file
  args = %(folder)s/users/%%u
}
"""

_OAUTH2_2_3 = """\
introspection_mode = post
introspection_url = %(introspection_url)s
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
tls_ca_cert_file = %(ca_file)s
"""

# Dovecot 2.4 renamed these settings, and verifies a token in the mechanism itself, without a passdb.
_SETTINGS_2_4 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
mail_driver = maildir
mail_path = ~/Maildir
ssl = required
ssl_server_cert_file = %(certificate)s
ssl_server_key_file = %(key)s
oauth2 {
  introspection_mode = post
  introspection_url = %(introspection_url)s
  force_introspection = yes
  username_attribute = username
  active_attribute = active
  active_value = true
  ssl_client_ca_file = %(ca_file)s
}
userdb passwd-file {
  passwd_file_path = %(folder)s/users/%%{user}
}
"""
