"""What `mailferry demo` tells a person when the harbour is open: what to type into a mail program, and curl lines.

What it is: words, in ASCII, for every terminal. `journey.py` prints them; each curl line is a whole shell command, and
tests run every one as it is printed.
"""

from __future__ import annotations

import shlex

from proxy.demo.harbour import ANYBODY, Harbour


def guide(harbour: Harbour) -> str:
    imap, pop3, smtp = (harbour.ports[protocol] for protocol in ("imap", "pop3", "smtp"))
    letter = f"--mail-from {harbour.login} --mail-rcpt {ANYBODY} -T {shlex.quote(str(harbour.letter_file))}"
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

  {_curl(harbour, f"'imap://localhost:{imap}/INBOX;MAILINDEX=1'")}
  {_curl(harbour, f"pop3://localhost:{pop3}/2")}

Send a letter, which arrives in the same inbox as its newest:

  {_curl(harbour, f"{letter} smtp://localhost:{smtp}")}
  {_curl(harbour, f"'imap://localhost:{imap}/INBOX;MAILINDEX=*'")}

The same with TLS:

  {_curl(harbour, f"'imaps://localhost:{imap}/INBOX;MAILINDEX=1'", tls=True)}
  {_curl(harbour, f"pop3s://localhost:{pop3}/2", tls=True)}
  {_curl(harbour, f"{letter} --ssl-reqd smtp://localhost:{smtp}", tls=True)}

The set-up page, by a link that works once, within ten minutes:

  {harbour.page_link()}

Until the end:

  log        {harbour.log_file}
  CA file    {harbour.ca_file}

Ctrl-C closes the harbour and removes all of it."""


def _curl(harbour: Harbour, rest: str, *, tls: bool = False) -> str:
    user = f"-u {shlex.quote(f'{harbour.login}:{harbour.password}')}"
    trust = f"--cacert {shlex.quote(str(harbour.ca_file))} " if tls else ""
    return f"curl {user} {trust}{rest}"
