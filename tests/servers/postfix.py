"""Debian's Postfix as a throw-away server: the submission service behind the proxy in tests (FACTS 2.4).

STARTTLS and XOAUTH2, both required, as at smtp.office365.com; the token is verified by our Dovecot, and mail for the
domain is delivered into it by LMTP. An instance of its own: configuration, queue, data and log are in one temporary
folder, and neither /etc/postfix nor the system's queue is touched. Not a test: `test_servers.py` proves it.
"""

from __future__ import annotations

import os
import shutil
import smtplib
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.demo.certificates import LocalCertificate
from tests.servers.child import Child, free_port, program, tail
from tests.servers.dovecot import Dovecot

DAEMONS = "/usr/lib/postfix/sbin"  # Debian's and Ubuntu's daemon_directory
MESSAGE_LIMIT_OCTETS = 157_286_400  # what Exchange Online announces as SIZE (FACTS 2.2)
PROBE_TIMEOUT_S = 2.0
_OWN_QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved")


class Postfix:
    """A context manager: started and answering inside the `with`, in front of this Dovecot.

    `folder` must be open to other system users (`child.open_folder`).
    """

    def __init__(self, folder: Path, certificate: LocalCertificate, dovecot: Dovecot, domain: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "postfix.log"
        self._master = program("master", DAEMONS)
        self._child: Child | None = None
        values = {
            "folder": folder,
            "port": self.port,
            "domain": domain,
            "certificate": certificate.file,
            "key": certificate.key,
            "auth_socket": dovecot.auth_socket,
            "lmtp_socket": dovecot.lmtp_socket,
            "daemons": Path(self._master).parent,
            "message_limit_octets": MESSAGE_LIMIT_OCTETS,
        }
        (folder / "main.cf").write_text(_MAIN % values)
        (folder / "master.cf").write_text(_MASTER % values)
        self._make_queue()

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def __enter__(self) -> Self:
        # -d: in the foreground. At its end it kills its whole process group, which is the child's own.
        self._child = Child("postfix", [self._master, "-c", str(self.folder), "-d"], self.folder / "postfix.out")
        self._child.wait_ready(lambda: _greets(self.port), self.log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(tail(self.log))
        if self._child is not None:
            self._child.stop()

    def _make_queue(self) -> None:
        """The folders that `postfix check` would make, with the owners that the daemons demand."""
        for name in ("queue", "queue/pid"):
            (self.folder / name).mkdir()
        owned = [*(self.folder / "queue" / name for name in (*_OWN_QUEUES, "trace")), self.folder / "data"]
        for folder in owned:
            folder.mkdir(mode=0o700)
            shutil.chown(folder, "postfix")
        for name, mode in (("public", 0o2710), ("maildrop", 0o1730)):
            folder = self.folder / "queue" / name
            folder.mkdir()
            shutil.chown(folder, "postfix", "postdrop")
            os.chmod(folder, mode)


def _greets(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=PROBE_TIMEOUT_S) as client:
            return client.noop()[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


# lmtp_line_length_limit = 0: otherwise Postfix folds lines beyond 998 octets, and a message would not arrive as sent.
_MAIN = """\
compatibility_level = 3.6
config_directory = %(folder)s
queue_directory = %(folder)s/queue
data_directory = %(folder)s/data
daemon_directory = %(daemons)s
maillog_file = %(folder)s/postfix.log
maillog_file_prefixes = %(folder)s
myhostname = localhost
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:no local mail here
relayhost =
default_transport = error:nothing leaves this machine
relay_transport = error:nothing leaves this machine
virtual_mailbox_domains = %(domain)s
virtual_transport = lmtp:unix:%(lmtp_socket)s
lmtp_line_length_limit = 0
message_size_limit = %(message_limit_octets)d
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = %(certificate)s
smtpd_tls_key_file = %(key)s
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %(auth_socket)s
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 100
"""

_MASTER = """\
127.0.0.1:%(port)d inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
