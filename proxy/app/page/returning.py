"""The way back from Microsoft: where a sign-in that a browser began on this page lands again.

It comes as a GET or as a form (`response_mode=form_post`) from another site, so without our cookie, to the app's
redirect address at this page's port; its `state` is the secret that it must bring, and it works once. The answer is a
page of our own, not a redirect: only from there does the browser send the session's cookie (SameSite=Strict).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from proxy.accounts.sign_in import CODE_LIFE_S
from proxy.accounts.store import StoreError
from proxy.app.answers import DeskError
from proxy.app.page.wire import Page, Problem, Received, Works, path_to, read_form

MAX_RETURNS = 100  # as many as there may be sign-ins (accounts/sign_in.py)


@dataclass(frozen=True, slots=True)
class _Expected:
    login: str
    base: str
    """How the browser reached the page, which need not be the way it comes back."""
    path: str
    until_s: float


class Returns:
    """The sign-ins that browsers were sent away with. `now` gives seconds that only go forward."""

    def __init__(self, port: int, now: Callable[[], float]) -> None:
        self._port = port
        self._now = now
        self._expected: dict[str, _Expected] = {}

    def address(self, registered_uri: str) -> str | None:
        """The redirect address to ask for: the app's, at this page's port, which Microsoft ignores for localhost
        (FACTS 1.3). None: the registered one does not lead to this page."""
        parts = urlsplit(registered_uri)
        if parts.scheme != "http":
            return None
        return urlunsplit(("http", f"{parts.hostname}:{self._port}", parts.path, parts.query, ""))

    def expect(self, state: str, login: str, base: str, redirect_uri: str) -> None:
        """A browser goes to Microsoft now."""
        while len(self._expected) >= MAX_RETURNS:
            del self._expected[next(iter(self._expected))]
        path = urlsplit(redirect_uri).path or "/"
        self._expected[state] = _Expected(login, base, path, self._now() + CODE_LIFE_S)

    async def land(
        self, received: Received, steps: list[str], query: Mapping[str, str], works: Works
    ) -> Page | Problem | None:
        """What ends the sign-in; None if this request is no return of ours."""
        path = "/" + "/".join(steps)
        if received.method == "HEAD" or path not in {"/", *(expected.path for expected in self._expected.values())}:
            return None
        fields = dict(reversed(read_form(received))) if received.method == "POST" else query
        if "state" not in fields or not {"code", "error"} & fields.keys():
            return None
        state = fields["state"]
        expected = self._expected.pop(state, None)
        if expected is None or expected.path != path or self._now() >= expected.until_s:
            text = "It was finished already, took longer than ten minutes, or did not begin on this page."
            return Problem(410, "This sign-in is over", text, "Open the account's page and sign in again.")
        to = expected.base + path_to("/accounts/{login}", login=expected.login)
        try:
            answer = await works.desk.ask("finish_code", {"id": state, "query": dict(fields)})
        except (DeskError, StoreError) as error:
            return Page("returned.html", to=to, login=expected.login, user="", text=error.text)
        return Page("returned.html", refresh_to=to, to=to, login=expected.login, user=answer["signed_in"], text="")
