"""Logins while somebody else guesses passwords, and what a guesser can read off the clock.

What it is: the measurements about wrong passwords (CLIENTS cases 40 and 66). What it is not: the attacker, who is a
process of his own (`attacker.py`). `__main__` calls it.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from proxy.accounts.passdb import PassDb
from proxy.accounts.passwords import hash_password
from proxy.config.settings import Account, LocalPassword
from proxy.login import Credentials, LoginRefused
from tests.accounts.fakes import account

from . import client
from .client import Door

ATTACKER = Path(__file__).with_name("attacker.py")
ENDS_WITHIN_S = 30.0


@contextlib.contextmanager
def _attack(door: Door, for_s: float) -> Iterator[None]:
    """An attack in full swing. Raises: client.Lost: the attacker could not keep it up."""
    command = [sys.executable, str(ATTACKER), str(door.port), str(for_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            if not process.stdout.readline():
                raise client.Lost("the attacker, before he was in full swing")
            yield
            done, _ = process.communicate(timeout=for_s + ENDS_WITHIN_S)
        finally:
            process.kill()
    print(f"  attack: {done.strip()}", file=sys.stderr)
    if json.loads(done)["answers"].get("a OK"):
        raise client.Lost("a guess was right")


def _first_login_s(door: Door) -> float:
    start = time.perf_counter()
    with client.Session(door) as session:
        session.log_in()
        return time.perf_counter() - start


def under_attack(
    door: Door, cpu_s: client.Cpu, restart: Callable[[], None], *, count: int, budget_s: float
) -> dict[str, float]:
    """In ms, in peace and under attack: the first login after a start, and the median of those after it."""
    restart()
    first_in_peace_s = _first_login_s(door)
    peace = client.logins(door, cpu_s, count=count, budget_s=budget_s)
    restart()
    with _attack(door, 2 * budget_s):
        first_s = _first_login_s(door)
        attacked = client.logins(door, cpu_s, count=count, budget_s=budget_s)
    return {
        "peace_ms": peace["ms"],
        "ms": attacked["ms"],
        "ratio": attacked["ms"] / peace["ms"],
        "first_in_peace_ms": first_in_peace_s * 1e3,
        "first_ms": first_s * 1e3,
    }


def refusals(*, count: int) -> dict[str, float]:
    """How long so many unknown logins take, and as many wrong passwords, in turn, in this process.

    The difference of their means in ms, unknown less wrong, and in its standard errors (Welch's t), with no sign there.
    """
    local = LocalPassword(hash_password("right"), "main", ("imap",), ())
    known = replace(account("known"), passwords=(local,))
    passdb = PassDb([known], run=lambda job: succeed(job()), now=time.monotonic)
    took: dict[str, list[float]] = {"unknown": [], "known": []}
    for number in range(count):
        for login in sorted(took, reverse=bool(number % 2)):  # neither is always the second
            took[login].append(_refusal_s(passdb, Credentials(login.encode(), b"wrong-%d" % number)))
    unknown, wrong = took["unknown"], took["known"]
    difference_s = statistics.fmean(unknown) - statistics.fmean(wrong)
    error_s = ((statistics.variance(unknown) + statistics.variance(wrong)) / count) ** 0.5
    return {"ms": difference_s * 1e3, "standard_errors": abs(difference_s) / error_s}


def _refusal_s(passdb: PassDb, credentials: Credentials) -> float:
    start = time.perf_counter()
    outcome: list[Account | Failure] = []
    Deferred.fromCoroutine(passdb.verify(credentials, protocol="imap", peer=None)).addBoth(outcome.append)
    took_s = time.perf_counter() - start
    assert isinstance(outcome[0], Failure)
    outcome[0].trap(LoginRefused)
    return took_s
