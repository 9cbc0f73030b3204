"""`mailferry demo`: the main job on the practice harbour, shown to a person, or made once by itself.

What it is: the order of the steps, their times, and the end. What it is not: the steps (`harbour.py`, `round_trip.py`)
or the long words (`guide.py`). `app.commands` calls `run`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import NoReturn

from proxy.demo.departure import Departure, Leaving
from proxy.demo.guide import guide
from proxy.demo.harbour import Harbour
from proxy.demo.program import HarbourFailed
from proxy.demo.round_trip import RoundTrip

Step = tuple[str, Callable[[], str]]
"""Its name, and what does it; that says what came of it."""


def run(*, once: bool) -> int:
    """Returns the exit code: 0 done, 1 a step failed. Nothing is left behind."""
    exit_code = 0
    try:
        with Departure() as departure, Harbour(departure) as harbour:
            try:
                with departure.heard():
                    _make_round_trip(harbour) if once else _stay_open(harbour)
            except Leaving:
                exit_code = 1 if once else 0
                print()
            except HarbourFailed as failed:
                exit_code = 1
                _tell(failed, harbour.log_tail())
    except HarbourFailed as failed:
        _tell(failed, [])
        return 1
    print("The harbour is closed; nothing is left of it.")
    return exit_code


def _make_round_trip(harbour: Harbour) -> None:
    mail = RoundTrip(harbour)
    steps = [
        *_opening(harbour),
        ("read by IMAP, plain", mail.read_imap),
        ("account connected", harbour.check_connected),
        ("read by IMAP, TLS", mail.read_imap_tls),
        ("read by POP3, plain", mail.read_pop3),
        ("sent by SMTP, STARTTLS", mail.send_smtp),
        ("read back by IMAP", mail.read_back),
    ]
    began = time.monotonic()
    print("mailferry demo: from nothing to mail that goes round, on a practice harbour on this machine.\n")
    for name, step in steps:
        started = time.monotonic()
        print(f"  {name:<24}", end="", flush=True)
        try:
            told = _take(name, step)
        except HarbourFailed:
            print(f"{time.monotonic() - started:6.2f} s  FAILED", flush=True)
            raise
        print(f"{time.monotonic() - started:6.2f} s  {told}", flush=True)
    print(f"\nAll {len(steps)} steps are well, in {time.monotonic() - began:.1f} s.")


def _stay_open(harbour: Harbour) -> NoReturn:
    print("Opening the practice harbour: a sign-in service, a mailbox, and mailferry between them ...\n", flush=True)
    for name, step in _opening(harbour):
        _take(name, step)
    print(guide(harbour), flush=True)
    harbour.wait()


def _opening(harbour: Harbour) -> list[Step]:
    return [
        ("sign-in service up", harbour.open_sign_in_service),
        ("mailbox up", harbour.open_mailbox),
        ("configuration written", harbour.write_configuration),
        ("daemon ready", harbour.start_daemon),
        ("app added", harbour.add_app),
        ("account added", harbour.add_account),
        ("signed in", harbour.sign_in),
    ]


def _take(name: str, step: Callable[[], str]) -> str:
    """Raises: HarbourFailed: with the step's name."""
    try:
        return step()
    except Exception as error:  # whatever a mail client makes of a wrong answer; a person sees words, no traceback
        said = str(error) if isinstance(error, HarbourFailed) else f"{type(error).__name__}: {error}"
        raise HarbourFailed(f'The step "{name}" failed. {said}') from error


def _tell(failed: HarbourFailed, log_tail: list[str]) -> None:
    print(f"\n{failed}", file=sys.stderr)
    if log_tail:
        print("\nThe end of the daemon's log:\n", *(f"  {line}" for line in log_tail), sep="\n", file=sys.stderr)
