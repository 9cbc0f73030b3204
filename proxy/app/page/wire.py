"""What a browser asks and what the page answers, as values; the bounded reading of one and the headers of the other.

What it is not: a socket (`service.py`), or a judgement of who may ask (`guard.py`). Topic modules make their routes and
answers of what is here; `site.py` reads and renders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote_to_bytes

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from proxy.app.desk import Desk
    from proxy.app.page.guard import Session
    from proxy.app.page.returning import Returns
    from proxy.app.registry import Registry
    from proxy.config import Config
    from proxy.metrics import Metrics, Now

MAX_BODY_OCTETS = 65_536  # the longest form is a pasted address; Microsoft's form_post is some 4 KiB
MAX_TARGET_OCTETS = 8_192  # a redirect with a long code; within the 16 KiB that all headers may have
MAX_FIELDS = 100  # in a form or a query; the largest form here has a dozen
MAX_FIELD_CHARACTERS = 16_384  # a pasted address with its code
_FORM_TYPE = "application/x-www-form-urlencoded"
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

T = TypeVar("T")


class Unreadable(Exception):
    """The request is not what a browser sends, or beyond the bounds; `status` and the text say which."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Received:
    """A whole request, unread; nothing here is trusted."""

    method: str
    target: bytes = field(repr=False)
    """Path and query, as they came."""
    headers: Mapping[str, Sequence[str]] = field(repr=False)
    """By name in lower case."""
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The header's value; None if it is missing, or there more than once."""
        values = self.headers.get(name, ())
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Sent:
    """A whole answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    octets: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Works:
    """What the page works with; the daemon makes it once."""

    desk: Desk
    registry: Registry
    returns: Returns
    config: Callable[[], Config]
    """The configuration as it is now: a reload changes it."""
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    """Runs what would block the reactor: hashing, files."""
    metrics: Metrics
    now: Callable[[], Now]
    """What `metrics` does not count by itself."""

    async def change(self, job: Callable[[], T]) -> T:
        """Have the registry change something, and the daemon work with it from now on.

        Raises: what `job` does; DeskError: what a person wrote meanwhile does not hold.
        """
        done: T = await self.in_thread(job)
        await self.desk.ask("reload", {})
        return done

    async def row(self, login: str) -> dict[str, Any] | None:
        """What the desk knows of this account (`Desk.accounts`); None: there is none."""
        rows = (await self.desk.ask("accounts", {}))["accounts"]
        return next((row for row in rows if login.casefold() in map(str.casefold, row["logins"])), None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the guard has let through, as a handler sees it."""

    path: Mapping[str, str]
    """The fields of the route's path, decoded: `login` of `/accounts/{login}`."""
    query: Mapping[str, str] = field(repr=False)
    service: Works = field(repr=False)
    base: str
    """`http://localhost:8143`: how this browser reaches the page."""
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """The form, in its order; a name may come more than once."""
    session: Session | None = field(default=None, repr=False)
    """None on routes that need no cookie."""

    @property
    def form(self) -> dict[str, str]:
        """The form's fields, trimmed; of several with one name the first."""
        return {name: value.strip() for name, value in reversed(self.fields)}

    def chosen(self, name: str) -> list[str]:
        """All values of a field that may come more than once (checkboxes)."""
        return [value for each, value in self.fields if each == name]

    def keep(self, name: str, value: Any) -> None:
        """Hold something for this person's next page: a new password, what was entered. Held once, and for minutes."""
        if self.session is not None:
            self.session.keep(name, value)

    def take(self, name: str) -> Any:
        """What was kept, once; None if there is nothing."""
        return self.session.take(name) if self.session is not None else None


# --- answers


class Page:
    """A template with what it shows. `here` is the navigation's key, if it is not the route's own."""

    def __init__(
        self,
        template: str,
        *,
        status: int = 200,
        refresh_s: int = 0,
        refresh_to: str = "",
        here: str = "",
        **context: Any,
    ) -> None:
        self.template = template
        self.status = status
        self.refresh_s = refresh_s
        self.refresh_to = refresh_to
        """Where the refresh leads; empty: to the same page. Without `refresh_s`: at once."""
        self.here = here
        self.context = context


@dataclass(frozen=True, slots=True)
class Redirect:
    """After a change (303): go there, and say this once."""

    to: str
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A file; without a name it is shown or read in place (XML for a program, JSON)."""

    octets: bytes = field(repr=False)
    media_type: str
    file_name: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, in words for a person."""

    status: int
    title: str
    text: str
    remedy: str = ""


Answer = Page | Redirect | Download | Problem
Handler = Callable[[Asked], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` has literal steps and fields: `/accounts/{login}/sign-in`. A literal step wins over a field."""

    method: str
    """GET (which serves HEAD too), or POST: every change is one, with a CSRF token."""
    path: str
    handler: Handler
    here: str = ""
    """The key of the navigation: setup, accounts, programs, doctor, administrator, certificate."""
    open: bool = False
    """Needs no cookie; then it holds no names of people and changes nothing."""

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.path.split("/")[1:])

    def match(self, steps: Sequence[str]) -> dict[str, str] | None:
        """The path's fields, if these steps fit; no field is empty."""
        ours = self.steps
        if len(ours) != len(steps):
            return None
        fields = {}
        for our, step in zip(ours, steps, strict=True):
            if our.startswith("{"):
                if not step:
                    return None
                fields[our[1:-1]] = step
            elif our != step:
                return None
        return fields


def path_to(pattern: str, **fields: str) -> str:
    """`path_to("/accounts/{login}", login="a/b@c")` -> `/accounts/a%2Fb%40c`."""
    return pattern.format(**{name: segment(value) for name, value in fields.items()})


def segment(text: str) -> str:
    """A text as one step of a path."""
    return quote(text, safe="")


# --- reading


def read_target(target: bytes) -> tuple[list[str], dict[str, str]]:
    """The decoded steps of the path, and the query.

    Raises: Unreadable: no plain path of this site: an absolute address, `..`, control characters, no UTF-8.
    """
    if len(target) > MAX_TARGET_OCTETS:
        raise Unreadable(414, "The address is too long.")
    if not target.startswith(b"/") or target.startswith(b"//"):
        raise Unreadable(400, "The address is no path of this page.")
    path, _, query = target.partition(b"?")
    try:
        steps = [unquote_to_bytes(step).decode() for step in path.split(b"/")[1:]]
    except UnicodeDecodeError:
        raise Unreadable(400, "The address is no UTF-8.") from None
    if any(step in (".", "..") or _has_control(step) for step in steps):
        raise Unreadable(400, "The address is no path of this page.")
    return steps, dict(reversed(read_fields(query)))


def read_form(received: Received) -> tuple[tuple[str, str], ...]:
    """The fields of a form. Raises: Unreadable: it is no urlencoded form, or too large."""
    if len(received.body) > MAX_BODY_OCTETS:
        raise Unreadable(413, "The form is too large.")
    media_type = (received.header("content-type") or "").partition(";")[0].strip().lower()
    if received.body and media_type != _FORM_TYPE:
        raise Unreadable(415, "The page takes forms only.")
    return read_fields(received.body)


def read_fields(octets: bytes) -> tuple[tuple[str, str], ...]:
    """Names and values of a query or a form. Raises: Unreadable: too many or too long, control characters, no UTF-8."""
    try:
        fields = parse_qsl(
            octets.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except ValueError:  # UnicodeDecodeError is one
        raise Unreadable(400, "The form or the query cannot be read.") from None
    for name, value in fields:
        if len(name) + len(value) > MAX_FIELD_CHARACTERS or _has_control(name) or _has_control(value, allowed="\r\n\t"):
            raise Unreadable(400, "A field is too long, or holds characters that no keyboard makes.")
    return tuple(fields)


def _has_control(text: str, allowed: str = "") -> bool:
    return any((character < " " or character == "\x7f") and character not in allowed for character in text)


# --- the headers of every answer


def headers_for(media_type: str, *, policy: str = _PAGE_POLICY, leaks: bool = False) -> tuple[tuple[str, str], ...]:
    """What keeps a browser strict. `leaks`: the page's own address holds a code, so nobody is told it.

    Elsewhere the Referer goes to ourselves only: with `no-referrer` browsers would send `Origin: null` with our forms.
    """
    return (
        ("Content-Type", media_type),
        ("Content-Security-Policy", policy),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer" if leaks else "same-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    )
