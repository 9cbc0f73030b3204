"""`mailferry demo`: the main job on the practice harbour, shown to a person, or made once by itself.

What it is: steps, times, and words for a person. What it is not: the harbour (`harbour.py`). `app.cli` calls `run`.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import poplib
import shlex
import signal
import smtplib
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import FrameType

from proxy.demo.harbour import Harbour, HarbourFailed

PATIENCE_S = 30.0  # for one answer of the daemon
WATCH_S = 0.5  # how soon a daemon that died is noticed
WELCOME = "Welcome to the practice harbour"


class _Leaving(BaseException):
    """Ctrl-C or SIGTERM."""


class _StepFailed(Exception):
    """What was expected and what came."""


def run(*, once: bool) -> int:
    """Returns the exit code: 0 done, 1 a step failed. Nothing is left behind."""
    with _signals():
        try:
            return _run_once() if once else _run_until_told()
        except _Leaving:
            print("\nThe harbour is closed; nothing is left of it.")
            return 1 if once else 0


def _run_until_told() -> int:
    print("Building a practice harbour: a sign-in service, a mailbox, and mailferry between them …", flush=True)
    harbour = Harbour()
    try:
        with harbour:
            harbour.sign_in()
            print(_guide(harbour), flush=True)
            while not harbour.has_ended():
                time.sleep(WATCH_S)
            raise HarbourFailed("The daemon ended by itself.")
    except (HarbourFailed, OSError) as error:
        return _fail(error, harbour)


def _run_once() -> int:
    began = time.monotonic()
    harbour = Harbour()
    steps: tuple[tuple[str, Callable[[Harbour], str]], ...] = (
        ("open the harbour", lambda h: h.__enter__() and "service, mailbox, daemon, one account"),
        ("sign in", _sign_in),
        ("read by IMAP", lambda h: _read_imap(h, tls=None)),
        ("read by IMAP, with TLS", lambda h: _read_imap(h, tls=_trust(h))),
        ("read by POP3", _read_pop3),
        ("send by SMTP, read it back", _send_and_read_back),
        ("the account's state", _check_connected),
    )
    print("mailferry demo: one round trip on a practice harbour\n")
    with contextlib.closing(harbour):
        for name, step in steps:
            started = time.monotonic()
            print(f"  {name:<28}", end="", flush=True)
            try:
                told = step(harbour)
            except (HarbourFailed, _StepFailed, imaplib.IMAP4.error, poplib.error_proto, OSError) as error:
                print(f"{time.monotonic() - started:6.2f} s  FAILED", flush=True)
                return _fail(error, harbour)
            print(f"{time.monotonic() - started:6.2f} s  {told}", flush=True)
    print(f"\nAll well, in {time.monotonic() - began:.1f} s. The harbour is closed; nothing is left of it.")
    return 0


# The steps


def _sign_in(harbour: Harbour) -> str:
    harbour.sign_in()
    return f"as {harbour.login}, by pasting the final address"


def _read_imap(harbour: Harbour, *, tls: ssl.SSLContext | None) -> str:
    with _imap(harbour, tls) as client:
        _, (count,) = client.select("INBOX")
        _, fetched = client.fetch("1", "(BODY.PEEK[])")
    _expect_subject(_body(fetched), WELCOME)
    return f"{int(count or 0)} messages; the first: {WELCOME}"


def _read_pop3(harbour: Harbour) -> str:
    client = poplib.POP3("localhost", harbour.ports["pop3"], timeout=PATIENCE_S)
    try:
        client.user(harbour.login)
        client.pass_(harbour.password)
        count, octets = client.stat()
        _expect_subject(b"\r\n".join(client.retr(1)[1]), WELCOME)
        client.quit()
    finally:
        client.close()
    return f"{count} messages, {octets} octets"


def _send_and_read_back(harbour: Harbour) -> str:
    subject = f"Round trip {uuid.uuid4().hex[:8]}"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = harbour.login, "anybody@example.com", subject
    message.set_content("Sent with a plain password, delivered with an OAuth2 token.\n")
    with smtplib.SMTP("localhost", harbour.ports["smtp"], timeout=PATIENCE_S) as sender:
        sender.starttls(context=_trust(harbour))
        sender.login(harbour.login, harbour.password)
        sender.send_message(message)
    with _imap(harbour, _trust(harbour)) as client:
        client.select("INBOX")
        _, (found,) = client.search(None, "SUBJECT", f'"{subject}"')
        numbers = (found or b"").split()
        if not numbers:
            raise _StepFailed(f"The message {subject!r} was sent but did not arrive in the inbox.")
        _, fetched = client.fetch(numbers[-1].decode(), "(BODY.PEEK[])")
    _expect_subject(_body(fetched), subject)
    return subject


def _check_connected(harbour: Harbour) -> str:
    state = harbour.state()
    if state != "connected":
        raise _StepFailed(f"The account should be connected, but `mailferry account list` says {state}.")
    return state


def _imap(harbour: Harbour, tls: ssl.SSLContext | None) -> imaplib.IMAP4:
    port = harbour.ports["imap"]
    if tls is None:
        client = imaplib.IMAP4("localhost", port, timeout=PATIENCE_S)
    else:
        client = imaplib.IMAP4_SSL("localhost", port, ssl_context=tls, timeout=PATIENCE_S)
    try:
        client.login(harbour.login, harbour.password)
    except BaseException:
        client.shutdown()
        raise
    return client


def _trust(harbour: Harbour) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(harbour.ca_file))


def _body(fetched: list[bytes | tuple[bytes, bytes]] | list[None]) -> bytes:
    for part in fetched:
        if isinstance(part, tuple):
            return part[1]
    raise _StepFailed("The server sent no message.")


def _expect_subject(data: bytes, expected: str) -> None:
    subject = message_from_bytes(data, policy=policy.default)["Subject"]
    if subject != expected:
        raise _StepFailed(f"The message read has the subject {subject!r}, not {expected!r}.")


# The words


def _guide(harbour: Harbour) -> str:
    ports, credentials = harbour.ports, f"{harbour.login}:{harbour.password}"
    who, trust = f"--user {shlex.quote(credentials)}", f"--cacert {shlex.quote(str(harbour.ca_file))}"
    letter = f"From: {harbour.login}\\nTo: anybody@example.com\\nSubject: Ahoy\\n\\nHello.\\n"
    envelope = f"--mail-from {harbour.login} --mail-rcpt anybody@example.com --upload-file -"
    page = f"\n  set-up page   http://127.0.0.1:{ports['page']}/" if harbour.serves_page() else ""
    return f"""
The harbour is open. In a mail program, set up:

  server        localhost            TLS: none, STARTTLS or TLS, on each port
  IMAP          port {ports["imap"]}
  POP3          port {ports["pop3"]}
  SMTP          port {ports["smtp"]}
  login         {harbour.login}
  password      {harbour.password}

Or read with curl:

  curl {who} imap://localhost:{ports["imap"]}/INBOX
  curl {who} 'imap://localhost:{ports["imap"]}/INBOX;MAILINDEX=1'
  curl {who} pop3://localhost:{ports["pop3"]}/1
  curl {who} {trust} \\
       'imaps://localhost:{ports["imap"]}/INBOX;MAILINDEX=1'

And send; it arrives in the same inbox:

  printf '{letter}' |
    curl {who} {trust} \\
         --ssl-reqd {envelope} \\
         smtp://localhost:{ports["smtp"]}

Where things are, until the end:
{page}
  configuration {harbour.config_file}
  log           {harbour.log_file}
  certificates  {harbour.ca_file}

Ctrl-C closes the harbour and removes all of it."""


def _fail(error: Exception, harbour: Harbour) -> int:
    print(f"\nIt did not work: {error}", file=sys.stderr)
    tail = harbour.last_log
    if tail:
        print("\nThe end of the daemon's log:\n", file=sys.stderr)
        for line in tail:
            print(f"  {line}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal raise `_Leaving` once; while we clean up they are not heard."""
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(_: int, __: FrameType | None) -> None:
        for each in asked:
            signal.signal(each, signal.SIG_IGN)
        raise _Leaving

    before = {each: signal.signal(each, leave) for each in asked}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
