"""The stand-in's codes and tokens: what the directory's people granted to its apps. Pure state; the clock is handed in.

What it is: authorization codes (RFC 6749 §4.1, RFC 7636), refresh tokens (§6), device codes (RFC 8628), client
credentials (§4.4), and the access tokens that come of them. What it is not: HTTP. `identity.py` calls it, one call
at a time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.demo.directory import (
    APP_ONLY,
    APP_ROLES,
    EXCHANGE,
    SHARED_TENANTS,
    TENANT,
    App,
    Directory,
    Person,
    Refused,
    Scopes,
    base64url,
    unsigned_jwt,
)

CODE_LIFETIME_S = 600  # Entra's codes live for about 10 minutes
REFRESH_LIFETIME_S = 90 * 86_400  # FACTS 3.3
DEVICE_LIFETIME_S = 900  # FACTS 3.3
USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXYZ23456789"  # RFC 8628 §6.1: nothing that is read wrongly


@dataclass(slots=True)
class _Code:
    app: App
    person: Person
    tenant: str
    redirect_uri: str
    scopes: Scopes
    challenge: str
    nonce: str
    expires: float
    redeemed: bool = False


@dataclass(slots=True)
class _RefreshToken:
    app: App
    person: Person
    scopes: Scopes
    expires: float


@dataclass(slots=True)
class _DeviceCode:
    app: App
    scopes: Scopes
    user_code: str
    interval_s: int
    expires: float
    polled: float = 0.0
    person: Person | None = None
    denied: bool = False
    redeemed: bool = False


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What stands behind an access token; `person` is None for an app of its own right."""

    person: Person | None
    app: App | None
    scope: str
    audience: str
    permissions: tuple[str, ...]
    issued: float
    expires: float

    @property
    def opens_mail(self) -> bool:
        """Exchange takes it: the right audience, and app-only tokens with a role (FACTS 1.4, 1.6)."""
        return bool(self.permissions) and self.audience in (EXCHANGE if self.person else (APP_ONLY,))

    @property
    def user_name(self) -> str | None:
        """The UPN; for an app, its mailbox if it has exactly one."""
        if self.person is not None:
            return self.person.upn
        mailboxes = self.app.may_open if self.app else frozenset()
        return next(iter(mailboxes)) if len(mailboxes) == 1 else None

    @property
    def mailboxes(self) -> frozenset[str]:
        """Case-folded names of every mailbox that it opens by IMAP and POP."""
        if self.person is not None:
            return self.person.also_may_open | {self.person.upn.casefold()}
        return frozenset(name.casefold() for name in self.app.may_open) if self.app else frozenset()


Answer = dict[str, Any]  # the JSON of a token or device answer


@dataclass(slots=True)
class Grants:
    directory: Directory
    now: Callable[[], float]
    """Seconds since the epoch."""
    access_token_lifetime_s: int
    device_interval_s: int
    single_use_refresh_tokens: bool
    """Stricter than Entra, which leaves a used refresh token valid (FACTS 3.3)."""
    issuer: str = ""
    _codes: dict[str, _Code] = field(default_factory=dict)
    _refresh_tokens: dict[str, _RefreshToken] = field(default_factory=dict)
    _device_codes: dict[str, _DeviceCode] = field(default_factory=dict)
    _access_tokens: dict[str, AccessToken] = field(default_factory=dict)

    def authorize(self, app: App, person: Person, tenant: str, query: Mapping[str, str]) -> str:
        """The authorization code for this request. The redirect URI was checked already. Raises: Refused."""
        if query.get("response_type") != "code":
            raise Refused(700054)
        scopes = Scopes.parse(query.get("scope", ""))
        method, challenge = query.get("code_challenge_method"), query.get("code_challenge", "")
        if app.public and not challenge:
            raise Refused(9002325)
        if challenge and method != "S256":
            raise Refused(501491)
        app.check_person(person, tenant)
        scopes.check(app)
        code = "1." + secrets.token_urlsafe(64)
        self._codes[code] = _Code(
            app=app,
            person=person,
            tenant=tenant,
            redirect_uri=query["redirect_uri"],
            scopes=scopes,
            challenge=challenge,
            nonce=query.get("nonce", ""),
            expires=self.now() + CODE_LIFETIME_S,
        )
        return code

    def token(self, app: App, tenant: str, form: Mapping[str, str]) -> Answer:
        """The token endpoint, after the client proved itself. Raises: Refused."""
        match form.get("grant_type"):
            case "authorization_code":
                return self._redeem_code(app, tenant, form)
            case "refresh_token":
                return self._refresh(app, form)
            case "device_code" | "urn:ietf:params:oauth:grant-type:device_code":
                return self._poll_device(app, form)
            case "client_credentials":
                return self._app_only(app, tenant, form)
            case None:
                raise Refused(90014, "The field is grant_type.")
            case _:
                raise Refused(70003)

    def start_device(self, app: App, form: Mapping[str, str], verification_uri: str) -> Answer:
        """RFC 8628 §3.2. Raises: Refused."""
        scopes = Scopes.parse(form.get("scope", ""))
        device_code, user_code = (
            secrets.token_urlsafe(96),
            "".join(secrets.choice(USER_CODE_ALPHABET) for _ in range(9)),
        )
        expires = self.now() + DEVICE_LIFETIME_S
        self._device_codes[device_code] = _DeviceCode(app, scopes, user_code, self.device_interval_s, expires)
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": verification_uri,
            "expires_in": DEVICE_LIFETIME_S,
            "interval": self.device_interval_s,
            "message": f"To sign in, open the page {verification_uri} and enter the code {user_code} to authenticate.",
        }

    def decide_device(self, user_code: str, person: Person | None) -> None:
        """Somebody typed this code: approved by that person, or denied if None. Raises: Refused: not known."""
        for device in self._device_codes.values():
            if device.user_code == user_code.strip().upper():
                device.person, device.denied = person, person is None
                return
        raise Refused(70018)

    def issue(self, person: Person, scopes: Scopes, lifetime_s: float, app: App | None = None) -> str:
        """An access token without a dance."""
        now = self.now()
        token = AccessToken(person, app, scopes.echo, scopes.resource, scopes.permissions, now, now + lifetime_s)
        return self._keep(token)

    def look_up(self, token: str) -> AccessToken | None:
        """What stands behind it, if it is unexpired, unrevoked, and meant for Exchange."""
        found = self._access_tokens.get(token)
        return found if found is not None and found.opens_mail and self.now() < found.expires else None

    def revoke(self, person: Person) -> None:
        """As after a changed password: nothing that this person granted is good any more."""
        self._access_tokens = {t: a for t, a in self._access_tokens.items() if a.person is not person}
        self._refresh_tokens = {t: r for t, r in self._refresh_tokens.items() if r.person is not person}
        self._codes = {t: c for t, c in self._codes.items() if c.person is not person}

    def _redeem_code(self, app: App, tenant: str, form: Mapping[str, str]) -> Answer:
        code = self._codes.get(form.get("code", ""))
        if code is None or code.app is not app or code.tenant != tenant:
            raise Refused(70000)
        if code.redeemed:
            raise Refused(54005)
        if self.now() >= code.expires:
            raise Refused(70008)
        if form.get("redirect_uri") != code.redirect_uri:
            raise Refused(500112)
        verifier = form.get("code_verifier", "")
        digest = base64url(hashlib.sha256(verifier.encode()).digest())
        if code.challenge and not hmac.compare_digest(digest, code.challenge):
            raise Refused(501481)
        if "scope" in form:
            _check_granted(Scopes.parse(form["scope"]), code.scopes)
        code.redeemed = True
        return self._answer(app, code.person, code.scopes, form, nonce=code.nonce)

    def _refresh(self, app: App, form: Mapping[str, str]) -> Answer:
        text = form.get("refresh_token", "")
        grant = self._refresh_tokens.get(text)
        if grant is None:
            raise Refused(50173 if text.startswith("1.") else 70000)
        if grant.app is not app:
            raise Refused(70000)
        if self.now() >= grant.expires:
            raise Refused(70008)
        scopes = Scopes.parse(form["scope"]) if form.get("scope") else grant.scopes
        _check_granted(scopes, grant.scopes)
        if not app.consented:
            raise Refused(65001)
        if self.single_use_refresh_tokens:
            del self._refresh_tokens[text]
        return self._answer(app, grant.person, scopes, form, granted=grant.scopes)

    def _poll_device(self, app: App, form: Mapping[str, str]) -> Answer:
        device = self._device_codes.get(form.get("device_code", ""))
        if device is None or device.app is not app:
            raise Refused(70018)
        now = self.now()
        too_soon = now - device.polled < device.interval_s
        device.polled = now
        if device.redeemed:
            raise Refused(54005)
        if now >= device.expires:
            raise Refused(70019)
        if device.denied:
            raise Refused(65004, error="authorization_declined")
        if too_soon:
            device.interval_s += 5  # RFC 8628 §3.5
            raise Refused(70016, error="slow_down")
        if device.person is None:
            raise Refused(70016)
        device.scopes.check(app)
        device.redeemed = True
        return self._answer(app, device.person, device.scopes, form)

    def _app_only(self, app: App, tenant: str, form: Mapping[str, str]) -> Answer:
        if tenant in SHARED_TENANTS:
            raise Refused(9001023)
        resource, _, default = form.get("scope", "").rpartition("/")
        if default != ".default" or resource not in EXCHANGE:
            raise Refused(1002012)
        if app.public:
            raise Refused(7000218)
        roles = APP_ROLES if app.app_only else ()  # without roles Entra issues a token that opens nothing
        now, lifetime_s = self.now(), self.access_token_lifetime_s
        token = AccessToken(None, app, form["scope"], resource, roles, now, now + lifetime_s)
        return {
            "token_type": "Bearer",
            "expires_in": lifetime_s,
            "ext_expires_in": lifetime_s,
            "access_token": self._keep(token),
        }

    def _answer(
        self,
        app: App,
        person: Person,
        scopes: Scopes,
        form: Mapping[str, str],
        *,
        granted: Scopes | None = None,
        nonce: str = "",
    ) -> Answer:
        lifetime_s = self.access_token_lifetime_s
        answer: Answer = {
            "token_type": "Bearer",
            "scope": scopes.echo,
            "expires_in": lifetime_s,
            "ext_expires_in": lifetime_s,
            "access_token": self.issue(person, scopes, lifetime_s, app),
        }
        granted = granted or scopes
        if "offline_access" in granted.oidc:
            refresh_token = "1." + secrets.token_urlsafe(384)
            self._refresh_tokens[refresh_token] = _RefreshToken(app, person, granted, self.now() + REFRESH_LIFETIME_S)
            answer["refresh_token"] = refresh_token
        if "openid" in granted.oidc:
            answer["id_token"] = unsigned_jwt(self._claims(person, app.application_id, nonce))
        if form.get("client_info") == "1":
            client_info = {"uid": person.object_id, "utid": person.tenant}
            answer["client_info"] = base64url(json.dumps(client_info).encode())
        return answer

    def _keep(self, token: AccessToken) -> str:
        if token.person is not None and token.person.personal:
            text = "EwB" + base64.b64encode(secrets.token_bytes(768)).decode()  # not a JWT (FACTS 2.1)
        else:
            who = self._claims(token.person, token.audience, "") if token.person else {"aud": token.audience}
            text = unsigned_jwt(
                {**who, "exp": int(token.expires), "scp": token.scope, "uti": secrets.token_urlsafe(16)}
            )
        self._access_tokens[text] = token
        return text

    def _claims(self, person: Person, audience: str, nonce: str) -> dict[str, Any]:
        now = int(self.now())
        return {
            "aud": audience,
            "iss": self.issuer.replace(TENANT, person.tenant),
            "iat": now,
            "nbf": now,
            "exp": now + self.access_token_lifetime_s,
            "name": person.upn.partition("@")[0],
            "oid": person.object_id,
            "preferred_username": person.upn,
            "sub": person.object_id,
            "tid": person.tenant,
            "ver": "2.0",
            **({"nonce": nonce} if nonce else {}),
        }


def _check_granted(asked: Scopes, granted: Scopes) -> None:
    """Raises: Refused: a scope that was never granted (FACTS 1.4)."""
    have: Sequence[str] = [scope.casefold() for scope in granted.asked]
    if any(scope.casefold() not in have for scope in asked.asked):
        raise Refused(65001)
