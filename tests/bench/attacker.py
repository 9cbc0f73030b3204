"""Somebody on this machine who guesses passwords: many wrong IMAP logins a second, and connections that say nothing.

What it is: a process of its own with an address of its own, 127.0.0.2, which attacks one port of 127.0.0.1 for some
seconds and then stops by itself. What it is not: a measurement (`siege.py`, which starts it as
`python attacker.py PORT SECONDS`). It prints a line once it is in full swing, and at its end what it did, as JSON.

Each guess is a new connection and a new password, for one of many logins in turn: first the one that exists.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time
from collections import Counter

SOURCE, TARGET = "127.0.0.2", "127.0.0.1"
GUESSES_PER_S = 200
SILENT = 300
"""Connections that are greeted, and held open without a word."""
LOGINS = ("bench@contoso.com", *(f"user-{n}@contoso.com" for n in range(49)))
SWING = 50  # guesses made
MAX_OPEN = 2_000  # of guesses that wait for their answer
MAX_FOR_S = 60.0
PATIENCE_S = 10.0


def _connect(port: int) -> socket.socket:
    return socket.create_connection((TARGET, port), PATIENCE_S, (SOURCE, 0))


def _is_open(silent: socket.socket) -> bool:
    silent.setblocking(False)
    try:
        return bool(silent.recv(1024))
    except BlockingIOError:
        return True
    except OSError:
        return False


class _Guesses:
    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self.made = 0
        self.answers: Counter[str] = Counter()

    def catch_up(self, count: int) -> None:
        """Make guesses until there were so many."""
        while self.made < count and len(self._selector.get_map()) < MAX_OPEN:
            connection = _connect(self._port)
            connection.setblocking(False)
            login = LOGINS[self.made % len(LOGINS)]
            self._selector.register(connection, selectors.EVENT_READ, [f'a LOGIN "{login}" "guess-{self.made}"\r\n'])
            self.made += 1

    def listen(self, for_s: float) -> None:
        """Send each guess behind its greeting, and hear what comes of it."""
        for key, _ in self._selector.select(for_s):
            connection, unsaid = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            try:
                heard = connection.recv(4096)
                if heard and unsaid:
                    connection.sendall(unsaid.pop().encode())
                    continue
            except OSError:
                heard = b""
            self.answers[_kind(heard)] += 1
            self._selector.unregister(connection)
            connection.close()


def _kind(answer: bytes) -> str:
    for word in ("a OK", "* BYE", "AUTHENTICATIONFAILED", "a NO"):
        if word.encode() in answer:
            return word
    return "closed" if not answer else "other"


def main() -> None:
    port, for_s = int(sys.argv[1]), min(float(sys.argv[2]), MAX_FOR_S)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(_connect(port)) for _ in range(SILENT)]
        for each in silent:
            each.recv(1024)
        guesses, start, swings = _Guesses(port), time.monotonic(), False
        while (passed_s := time.monotonic() - start) < for_s:
            guesses.catch_up(int(passed_s * GUESSES_PER_S))
            guesses.listen(0.005)
            if not swings and guesses.made >= SWING:
                swings = True
                print("in full swing", flush=True)
        rate = guesses.made / (time.monotonic() - start)
        print(json.dumps({"per_s": rate, "answers": guesses.answers, "silent": sum(map(_is_open, silent))}))


if __name__ == "__main__":
    main()
