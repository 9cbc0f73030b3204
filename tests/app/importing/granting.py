"""Another program's sign-in at the stand-in: the refresh token that it would hold. Not a test."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import urllib.request
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from proxy.demo.browser import sign_in
from tests.app.importing.samples import SCOPE

REDIRECT_URI = "http://localhost"
VERIFIER = "a-verifier-that-has-at-least-its-43-characters-"
PATIENCE_S = 20


class SignInService(Protocol):
    """What an `IdentityProvider` is to this module."""

    @property
    def authority(self) -> str: ...
    @property
    def ca_file(self) -> Path: ...


def granted_elsewhere(identity: SignInService, application_id: str, more: str = "offline_access") -> str:
    """The refresh token that whoever sits at the browser grants; by authorization code."""
    scope = f"{SCOPE} {more}"
    asked = {
        "client_id": application_id,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": scope,
        "state": "another program's",
        "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    code = sign_in(f"{identity.authority}/oauth2/v2.0/authorize?{urlencode(asked)}", identity.ca_file).fields["code"]
    form = {
        "client_id": application_id,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "scope": scope,
        "code_verifier": VERIFIER,
    }
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(identity.ca_file)))
    opener = urllib.request.build_opener(secure, urllib.request.ProxyHandler({}))
    with opener.open(f"{identity.authority}/oauth2/v2.0/token", urlencode(form).encode(), PATIENCE_S) as answer:
        return str(json.load(answer)["refresh_token"])
