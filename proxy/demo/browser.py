"""A person's browser, played: opens a sign-in address and says where the sign-in service sent it back to.

What it is: one request and its redirect. What it is not: a sign-in page's reader; who signs in is told to the
provider (`IdentityProvider.sign_in_as`). The harbour and tests call it.
"""

from __future__ import annotations

import html
import re
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode, urlsplit

PATIENCE_S = 20


class SignInPage(Exception):
    """The sign-in service kept the browser on a page of its own: its text, with the AADSTS number."""


@dataclass(frozen=True, slots=True)
class Return:
    """Where the browser is sent, and the fields it carries there (`code` and `state`, or `error`)."""

    target: str
    fields: dict[str, str]
    posted: bool

    @property
    def address(self) -> str:
        """As the address bar would show it."""
        return f"{self.target}?{urlencode(self.fields)}"

    def deliver(self) -> str:
        """Really go there: the body of the answer of the program that listens."""
        body = urlencode(self.fields).encode()
        with urllib.request.urlopen(  # noqa: S310 - http to our own loopback listener
            self.target if self.posted else self.address, body if self.posted else None, timeout=PATIENCE_S
        ) as answer:
            return str(answer.read().decode("utf-8", "replace"))


def sign_in(address: str, ca_file: Path) -> Return:
    """Open this authorize address.

    Raises:
        SignInPage: the service redirects nowhere.
        OSError: it cannot be reached.
    """
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca_file)))
    direct = urllib.request.ProxyHandler({})  # the service is on loopback, whatever $https_proxy says
    try:
        with urllib.request.build_opener(secure, direct, _Stay).open(address, timeout=PATIENCE_S) as answer:
            page = answer.read().decode("utf-8", "replace")
    except HTTPError as error:
        with error:
            if error.code == 302:
                target = urlsplit(error.headers["Location"])
                return Return(target._replace(query="").geturl(), dict(parse_qsl(target.query)), posted=False)
            raise SignInPage(_text(error.read().decode("utf-8", "replace"))) from None
    form = re.search(r'<form method="post" action="([^"]*)"', page)
    if form is None:
        raise SignInPage(_text(page))
    inputs = re.findall(r'name="([^"]*)" value="([^"]*)"', page)
    return Return(html.unescape(form[1]), {name: html.unescape(value) for name, value in inputs}, posted=True)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow no redirect."""

    def redirect_request(self, *_: object) -> None:
        return None


def _text(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", page).split()))
