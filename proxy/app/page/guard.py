"""Who may ask the page: the one-time link, the sessions it opens, and what each request must bring along.

A page on loopback is within reach of every site that the browser has open, so nothing is believed for coming from
here: the Host is one of ours (DNS rebinding), the cookie is the session's, and a change brings the session's CSRF token
from our own page. Time and chance are handed in; nothing here knows a socket. Called by `site.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.app.page.wire import Received

LINK_LIFE_S = 600  # from the terminal into the browser
MAX_LINKS = 8  # `mailferry page` in a loop; the oldest goes
SESSION_IDLE_S = 8 * 3600  # a working day with a meeting in it
SESSION_LIFE_S = 24 * 3600
MAX_SESSIONS = 16  # browsers of one machine's administrators; the least used goes
NOTE_LIFE_S = 600  # a password that nobody has looked at
MAX_NOTES = 16
BURST_REQUESTS = 120  # some twenty pages with their files at once
REQUESTS_PER_S = 10.0
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_TOKEN_OCTETS = 32


class Turned(Exception):
    """Not let in; status, title and text are for the person, who may well be the right one."""

    def __init__(self, status: int, title: str, text: str, remedy: str = "") -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text
        self.remedy = remedy


@dataclass(slots=True)
class _Bucket:
    """Requests that may still come, refilled as time goes (a token bucket)."""

    left: float = BURST_REQUESTS
    told_s: float = 0.0

    def take(self, now: float) -> bool:
        self.left = min(float(BURST_REQUESTS), self.left + (now - self.told_s) * REQUESTS_PER_S)
        self.told_s = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Session:
    """One browser that came through a link. Its cookie's value is not in here: only the digest is kept."""

    csrf: str = field(repr=False)
    began_s: float
    seen_s: float
    now: Callable[[], float] = field(repr=False)
    bucket: _Bucket = field(default_factory=_Bucket, repr=False)
    notes: dict[str, tuple[float, Any]] = field(default_factory=dict, repr=False)
    """What the next page shows once, and until when."""

    def keep(self, name: str, value: Any) -> None:
        self.notes.pop(name, None)
        while len(self.notes) >= MAX_NOTES:
            del self.notes[next(iter(self.notes))]
        self.notes[name] = (self.now() + NOTE_LIFE_S, value)

    def take(self, name: str) -> Any:
        until_s, value = self.notes.pop(name, (0.0, None))
        return value if self.now() < until_s else None


class Guard:
    """All links and sessions of one page. `now` gives seconds that only go forward."""

    def __init__(self, address: str, port: int, now: Callable[[], float]) -> None:
        self._now = now
        own = f"[{address}]" if ":" in address else address
        self._hosts = frozenset(f"{name}:{port}".lower() for name in (*_LOOPBACK_NAMES, own))
        if port == 80:
            self._hosts |= {host.removesuffix(":80") for host in self._hosts}  # browsers leave it out
        self.cookie = f"mailferry-{port}"
        """Cookies know no ports; two mailferries on one machine have two."""
        self._links: dict[bytes, float] = {}
        self._sessions: dict[bytes, Session] = {}
        self._strangers = _Bucket(told_s=now())

    # --- the way in

    def invite(self) -> str:
        """A token that opens one session, within `LINK_LIFE_S`."""
        while len(self._links) >= MAX_LINKS:
            del self._links[next(iter(self._links))]
        token = secrets.token_urlsafe(_TOKEN_OCTETS)
        self._links[_digest(token)] = self._now() + LINK_LIFE_S
        return token

    def open(self, token: str) -> str:
        """The cookie's value of a new session. Raises: Turned: the link is used up, too old, or none of ours."""
        until_s = self._links.pop(_digest(token), 0.0)
        now = self._now()
        if now >= until_s:
            raise Turned(
                403,
                "This link is used up",
                "A link opens the page once, within ten minutes.",
                "Run `mailferry page` for a new one.",
            )
        self._forget_old()
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda digest: self._sessions[digest].seen_s)]
        secret = secrets.token_urlsafe(_TOKEN_OCTETS)
        csrf = secrets.token_urlsafe(_TOKEN_OCTETS)
        self._sessions[_digest(secret)] = Session(csrf, now, now, self._now, _Bucket(told_s=now))
        return secret

    def set_cookie(self, secret: str) -> str:
        """The header's value. Without an age: it ends with the browser."""
        return f"{self.cookie}={secret}; Path=/; HttpOnly; SameSite=Strict"

    # --- what each request must bring

    def check_host(self, received: Received) -> str:
        """The Host, which is one of ours. Raises: Turned: it is another's, or there is not exactly one."""
        host = (received.header("host") or "").lower()
        if host not in self._hosts:
            raise Turned(
                403,
                "Not this page's address",
                "The browser asked under a name that is not mailferry's own.",
                "Open the page as `mailferry page` prints it; a tunnel must have the same port on both ends.",
            )
        return host

    def session(self, received: Received) -> Session | None:
        """The session whose cookie came along. Raises: Turned: requests come too fast."""
        session = self._find(received)
        bucket = session.bucket if session else self._strangers  # a stranger's flood does not shut out who is in
        if not bucket.take(self._now()):
            raise Turned(429, "Too many requests", "Requests come faster than anybody clicks.", "Wait a few seconds.")
        return session

    def check_change(self, received: Received, session: Session, csrf: str | None, host: str) -> None:
        """Raises: Turned: this does not come from a form of our own page."""
        origin = received.header("origin") if "origin" in received.headers else f"http://{host}"
        fetched = received.header("sec-fetch-site") if "sec-fetch-site" in received.headers else "same-origin"
        foreign = origin != f"http://{host}" or fetched != "same-origin"  # who sends neither is no browser of today
        if foreign or csrf is None or not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
            raise Turned(
                403,
                "This did not come from the page",
                "A change must come from a form of this page; nothing was changed.",
                "Go back, load the page again, and repeat it.",
            )

    def _find(self, received: Received) -> Session | None:
        self._forget_old()
        for secret in _cookies(received, self.cookie):
            session = self._sessions.get(_digest(secret))
            if session is not None:
                session.seen_s = self._now()
                return session
        return None

    def _forget_old(self) -> None:
        now = self._now()
        old = [
            digest
            for digest, session in self._sessions.items()
            if now >= session.seen_s + SESSION_IDLE_S or now >= session.began_s + SESSION_LIFE_S
        ]
        for digest in old:
            del self._sessions[digest]


def _digest(secret: str) -> bytes:
    """Under which a secret is kept: looking it up tells nothing by its time, and memory holds no cookie."""
    return hashlib.sha256(secret.encode()).digest()


def _cookies(received: Received, name: str) -> list[str]:
    """The values of all cookies of this name; another program on this host may have set one of its own."""
    found = []
    for line in received.headers.get("cookie", ()):
        for each in line.split(";"):
            key, _, value = each.strip().partition("=")
            if key == name:
                found.append(value)
    return found
