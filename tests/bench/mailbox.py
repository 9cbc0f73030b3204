"""A real client before a real mailbox: mbsync fetches thousands of messages from Debian's Dovecot.

What it is: Dovecot with one Maildir, TLS and XOAUTH2, and one run of mbsync through a door, by the clock on the wall.
What it is not: the fake upstream (`upstream.py`), nor Dovecot as a proxy (`peers.py`). `__main__` calls it, where both
programs are installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .client import Door, Lost
from .peers import LOGIN, PASSWORD, SESSIONS, Ground, Peer, free_port

MESSAGE_OCTETS = 8_192  # a usual text mail
MAIL_UID = 65_534  # nobody: Dovecot opens no mailbox as root
PATIENCE_S = 300.0
MEMORY = Path("/dev/shm")  # where it exists, the disk takes no part


class Mailbox(Peer):
    """Dovecot, holding the messages; every proxy's upstream for this row."""

    name = "mailbox"

    def __init__(self, ground: Ground, messages: int) -> None:
        super().__init__(ground)
        self.port = free_port()
        self._mail = self.folder / "mail"
        for part in ("cur", "new", "tmp"):
            (self._mail / part).mkdir(parents=True)
        line = b"The quick brown fox jumps over the lazy dog, and then over it once more.\r\n"
        for number in range(messages):
            header = (
                f"From: a@contoso.com\r\nTo: {LOGIN}\r\nSubject: {number}\r\nMessage-ID: <{number}@contoso.com>\r\n\r\n"
            )
            text = header.encode() + line * (MESSAGE_OCTETS // len(line))
            (self._mail / "cur" / f"{1_700_000_000 + number}.M{number}.bench:2,S").write_bytes(text)
        for path in (self._mail, *self._mail.rglob("*")):
            os.chown(path, MAIL_UID, MAIL_UID)

    @staticmethod
    def prepare() -> bool:
        return os.geteuid() == 0 and all(map(shutil.which, ("dovecot", "mbsync")))

    def doors(self) -> dict[str, Door]:
        return {self.name: Door(self.port, "implicit", self.ground.client_context, b"")}

    @staticmethod
    def version() -> str:
        return "Dovecot and mbsync"

    def command(self) -> tuple[list[str], dict[str, str]]:
        file = self.folder / "dovecot.conf"
        file.write_text(f"""\
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = /dev/stderr
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <{self.ground.certificate.file}
ssl_key = <{self.ground.certificate.key}
auth_mechanisms = plain login xoauth2
mail_location = maildir:{self._mail}
mail_max_userip_connections = {SESSIONS}
first_valid_uid = 1
first_valid_gid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={MAIL_UID} gid={MAIL_UID} home={self._mail}
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {self.port}
    ssl = yes
  }}
}}
""")
        return ["dovecot", "-F", "-c", str(file)], {}


def mbsync(door: Door, ca_file: Path, messages: int) -> dict[str, float]:
    """Fetch all messages into an empty Maildir: seconds on the wall. Raises: Lost: not all of them came."""
    with tempfile.TemporaryDirectory(prefix="mailferry-mbsync-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        settings = folder / "mbsyncrc"
        settings.write_text(f"""\
FSync no
IMAPStore far
Host localhost
Port {door.port}
User {LOGIN}
Pass {PASSWORD}
AuthMechs LOGIN
SSLType {"IMAPS" if door.tls == "implicit" else "None"}
CertificateFile {ca_file}

MaildirStore near
Path {folder}/
Inbox {folder}/inbox

Channel all
Far :far:
Near :near:
Create Near
Sync Pull New
SyncState {folder}/state-
""")
        command = ["mbsync", "-q", "-c", str(settings), "all"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        took_s = time.perf_counter() - start
        came = sum(1 for part in ("cur", "new") for _ in (folder / "inbox" / part).glob("*"))
        if done.returncode or came != messages:
            raise Lost(f"mbsync: {came} of {messages} messages; {done.stderr[-300:]}")
    return {"s": took_s}
