"""What `mailferry demo` tells a person when the harbour is open: what to type into a mail program, and curl lines.

What it is: words, in ASCII, for every terminal. `journey.py` prints them; each command that is indented by two can
be pasted into a shell, and tests run every one as it is printed.
"""

from __future__ import annotations

import shlex

from proxy.demo.harbour import Harbour

ANYBODY = "anybody@example.com"
_BREAK = "\\\n    "  # of a line for the shell, which goes on indented


def guide(harbour: Harbour) -> str:
    imap, pop3, smtp = (harbour.ports[protocol] for protocol in ("imap", "pop3", "smtp"))
    return f"""\
The harbour is open. Set up a mail program with:

  server     localhost
  IMAP       port {imap}
  POP3       port {pop3}
  SMTP       port {smtp}
  security   none, STARTTLS or TLS: each port takes all three
  login      {harbour.login}
  password   {harbour.password}

Or read with curl:

  {_read(harbour, f"'imap://localhost:{imap}/INBOX;MAILINDEX=1'")}
  {_read(harbour, f"pop3://localhost:{pop3}/2")}

Send; it arrives in the same inbox, as the newest message:

  {_send(harbour, f"smtp://localhost:{smtp}")}
  {_read(harbour, f"'imap://localhost:{imap}/INBOX;MAILINDEX=*'")}

The same with TLS:

  {_read(harbour, f"'imaps://localhost:{imap}/INBOX;MAILINDEX=1'", tls=True)}
  {_read(harbour, f"pop3s://localhost:{pop3}/2", tls=True)}
  {_send(harbour, f"smtps://localhost:{smtp}", tls=True)}
  {_send(harbour, f"--ssl-reqd smtp://localhost:{smtp}", tls=True)}

Until the end:

  log        {harbour.log_file}
  CA file    {harbour.ca_file}

Ctrl-C closes the harbour and removes all of it."""


def _read(harbour: Harbour, address: str, *, tls: bool = False) -> str:
    user = f"-u {shlex.quote(f'{harbour.login}:{harbour.password}')}"
    trust = f"--cacert {shlex.quote(str(harbour.ca_file))} {_BREAK}" if tls else ""
    return f"curl {user} {trust}{address}"


def _send(harbour: Harbour, address: str, *, tls: bool = False) -> str:
    letter = r"printf 'Subject: Ahoy\n\nHello.\n' |"
    envelope = f"--mail-from {harbour.login} --mail-rcpt {ANYBODY} -T -"
    return f"{letter} {_read(harbour, address, tls=tls)} {_BREAK}{envelope}"
