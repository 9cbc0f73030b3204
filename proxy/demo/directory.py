"""The stand-in directory: people, app registrations, and Entra's rules about them. Pure state, no clock, no sockets.

What it is: who exists, what is allowed, and the AADSTS number of each refusal (FACTS 1.2-1.4, 5). What it is not:
codes and tokens (`grants.py`) or HTTP (`identity.py`), which call it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

TENANT = "7d2f0c1e-3b64-4f5a-9c8e-51a0d3e6b742"
CONSUMERS_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"  # the tenant id that every personal account has
SHARED_TENANTS = ("common", "organizations", "consumers")
PERSONAL_DOMAINS = frozenset({"outlook.com", "hotmail.com", "live.com", "msn.com"})

DELEGATED = "https://outlook.office.com"  # FACTS 1.4
APP_ONLY = "https://outlook.office365.com"  # FACTS 1.6; a work account may use it for delegated scopes too
EXCHANGE = (DELEGATED, APP_ONLY)
GRAPH = "https://graph.microsoft.com"
PERMISSIONS = ("IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send")
APP_ROLES = ("IMAP.AccessAsApp", "POP.AccessAsApp", "SMTP.SendAsApp")
EXCHANGE_SCOPES = tuple(f"{DELEGATED}/{permission}" for permission in PERMISSIONS)
OIDC_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 §2.2
CLOCK_SKEW_S = 300  # how far Entra lets a client's clock be off

_REFUSALS: Mapping[int, tuple[str, str]] = {
    28002: ("invalid_scope", "The value of the input parameter scope is not valid when requesting an access token."),
    28003: ("invalid_scope", "A scope of one resource at least must be asked for."),
    50011: ("invalid_request", "The redirect URI in the request is not one of those configured for the application."),
    50020: ("invalid_grant", "This user account does not exist in the tenant and cannot use this application."),
    50027: ("invalid_request", "Invalid JWT token."),
    50034: ("invalid_grant", "The user account does not exist in the directory."),
    50053: ("invalid_grant", "The account is locked, because of too many sign-in attempts."),
    50058: ("login_required", "A silent sign-in was asked for, but no user is signed in."),
    50074: ("interaction_required", "Strong authentication is required."),
    50076: ("interaction_required", "You must use multi-factor authentication."),
    50078: ("interaction_required", "The presented multi-factor authentication has expired."),
    50079: ("interaction_required", "The user must enroll in multi-factor authentication."),
    50105: ("interaction_required", "The signed-in user is not assigned to a role for the application."),
    50132: ("invalid_grant", "The session is not valid: the password expired, or was changed recently."),
    50133: ("invalid_grant", "The session is not valid: the password expired, or was changed recently."),
    50173: ("invalid_grant", "The grant is revoked; a fresh sign-in is needed."),
    50194: ("invalid_request", "The application is not multi-tenant. Use a tenant-specific endpoint."),
    50196: ("invalid_grant", "The server stopped this client because it asks the same again and again."),
    53000: (
        "interaction_required",
        "The device is not in the required state: Conditional Access wants a compliant one.",
    ),
    53003: ("interaction_required", "Access is blocked by Conditional Access policies."),
    54005: ("invalid_grant", "The authorization code was already redeemed."),
    65001: ("invalid_grant", "The user or administrator has not consented to use the application."),
    65004: ("access_denied", "The user declined to consent to access the application."),
    70000: ("invalid_grant", "The provided grant is invalid or malformed."),
    70003: ("unsupported_grant_type", "The grant type is not supported."),
    70008: ("invalid_grant", "The authorization code or refresh token has expired."),
    70011: ("invalid_scope", "The scopes asked for are not valid; they are not compatible with each other."),
    70016: ("authorization_pending", "Authorization is pending. Continue polling."),
    70018: ("bad_verification_code", "The device code is not known."),
    70019: ("expired_token", "The device code has expired."),
    70043: ("invalid_grant", "The refresh token has expired or is invalid because of sign-in frequency checks."),
    90002: ("invalid_request", "The tenant was not found."),
    90014: ("invalid_request", "A required field is missing."),
    90033: ("temporarily_unavailable", "A transient error has occurred. Please try again."),
    90094: ("access_denied", "An administrator must consent to this application."),
    90095: ("access_denied", "An administrator must consent; the user was offered a consent request."),
    500112: ("invalid_client", "The reply address is not the one given when the code was asked for."),
    500208: ("invalid_request", "The domain is not a valid login domain for the account type."),
    501481: ("invalid_grant", "The code_verifier does not match the code_challenge of the authorization request."),
    501491: ("invalid_request", "The code_challenge_method must be S256."),
    530032: ("interaction_required", "Access is blocked by the security policy of the tenant."),
    530035: ("interaction_required", "Access is blocked by security defaults."),
    650053: ("invalid_client", "The application asked for a scope that does not exist on the resource."),
    650057: ("invalid_resource", "The client asked for a resource that is not among the requested permissions."),
    700011: ("unauthorized_client", "The application of the request does not belong to the directory."),
    700016: ("unauthorized_client", "The application was not found in the directory."),
    700021: ("invalid_client", "Issuer and subject of the client assertion must be the application id."),
    700022: ("invalid_scope", "Several resources are named in the scope."),
    700023: ("invalid_client", "The audience of the client assertion is not this token endpoint."),
    700024: ("invalid_client", "The client assertion is not within its valid time range."),
    700025: ("invalid_client", "Client is public so neither client_assertion nor client_secret should be presented."),
    700027: ("invalid_client", "The certificate or the signature of the client assertion is not valid."),
    700054: ("unsupported_response_type", "This response_type is not enabled for the application."),
    700082: ("invalid_grant", "The refresh token has expired due to inactivity."),
    1002012: ("invalid_scope", "A client credentials scope must be one resource followed by /.default."),
    7000215: ("invalid_client", "Invalid client secret provided."),
    7000218: ("invalid_client", "The request body must contain client_assertion or client_secret."),
    7000222: ("invalid_client", "The provided client secret keys are expired."),
    9001023: ("invalid_request", "The grant type is not supported over the shared endpoints. Use a tenant."),
    9002313: ("invalid_request", "The request is malformed or invalid."),
    9002325: ("invalid_request", "Proof Key for Code Exchange is required."),
    9002331: ("invalid_request", "The application is for Microsoft Account users only. Use the /consumers endpoint."),
    9002332: ("invalid_request", "The application is for work users only. Do not use the /consumers endpoint."),
}


_ANY_OTHER = ("invalid_grant", "An error that only a test knows.")


class Refused(Exception):
    """Entra's no: an AADSTS number, its OAuth error name and its text, which for a known number need not be given."""

    def __init__(
        self, code: int, detail: str = "", *, error: str | None = None, text: str | None = None, suberror: str = ""
    ) -> None:
        super().__init__(code)
        known = _REFUSALS.get(code, _ANY_OTHER)
        self.code = code
        self.error = error or known[0]
        self.text = f"{known[1] if text is None else text} {detail}".strip()
        self.suberror = suberror or ("consent_required" if code == 65001 else "")

    def description(self, now: float, trace_id: str = "", correlation_id: str = "") -> str:
        """As `error_description`, with what an administrator finds it by at its end."""
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
        trace = f"Trace ID: {trace_id or uuid.uuid4()} Correlation ID: {correlation_id or uuid.uuid4()}"
        return f"AADSTS{self.code}: {self.text} {trace} Timestamp: {moment}"

    @property
    def status(self) -> int:
        return 401 if self.error == "invalid_client" else 400


@dataclass(slots=True)
class Person:
    upn: str
    password: str = field(repr=False)
    also_may_open: frozenset[str]
    object_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def personal(self) -> bool:
        return self.upn.rpartition("@")[2].casefold() in PERSONAL_DOMAINS

    @property
    def tenant(self) -> str:
        return CONSUMERS_TENANT if self.personal else TENANT


@dataclass(slots=True)
class App:
    """An app registration; `consented` may be changed while it is in use."""

    application_id: str
    redirect_uris: tuple[str, ...]
    public: bool
    secret: str | None = field(repr=False)
    certificate: x509.Certificate | None
    account_types: str
    permissions: tuple[str, ...]
    consented: bool
    app_only: bool
    """The application roles for app-only access are granted (FACTS 1.6)."""
    may_open: frozenset[str]
    """The mailboxes that the service principal has rights on."""

    def check_audience(self, tenant: str) -> None:
        """Raises: Refused: registration and authority do not agree (FACTS 1.2)."""
        match self.account_types:
            case "common":
                return
            case "consumers":
                if tenant not in ("consumers", CONSUMERS_TENANT):
                    raise Refused(9002331)
            case "organizations":
                if tenant in ("consumers", CONSUMERS_TENANT):
                    raise Refused(9002332)
            case _:
                if tenant in ("consumers", CONSUMERS_TENANT):
                    raise Refused(9002332)
                if tenant in SHARED_TENANTS:
                    raise Refused(50194)

    def check_person(self, person: Person, tenant: str) -> None:
        """Raises: Refused: this kind of account cannot sign in to this app here."""
        refused = self.account_types not in ("common", "consumers") if person.personal else tenant == "consumers"
        if refused or (person.personal and tenant not in ("common", "consumers", CONSUMERS_TENANT)):
            raise Refused(50020)

    def check_redirect_uri(self, uri: str) -> None:
        """Raises: Refused: not registered; only a localhost's port may differ (FACTS 1.3)."""
        if not any(_same_address(uri, registered) for registered in self.redirect_uris):
            raise Refused(50011)

    def check_proof(self, form: Mapping[str, str], token_endpoints: Sequence[str], now: float) -> None:
        """Raises: Refused: the client did not prove who it is, or proved what it must not (FACTS 1.3)."""
        secret, assertion = form.get("client_secret"), form.get("client_assertion")
        if self.public:
            if secret is not None or assertion is not None:
                raise Refused(700025)
        elif assertion is not None:
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                raise Refused(9002313)
            self._check_assertion(assertion, token_endpoints, now)
        elif secret is None:
            raise Refused(7000218)
        elif self.secret is None or not hmac.compare_digest(secret.encode(), self.secret.encode()):
            raise Refused(7000215)

    def _check_assertion(self, assertion: str, token_endpoints: Sequence[str], now: float) -> None:
        """RFC 7523 §3, with a certificate: RS256 and x5t, or PS256 and x5t#S256."""
        signed, _, signature = assertion.rpartition(".")
        try:
            header, claims = (json.loads(from_base64url(part)) for part in signed.split("."))
            scheme, thumbprint = {
                "RS256": (padding.PKCS1v15(), "x5t"),
                "PS256": (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH), "x5t#S256"),
            }[header["alg"]]
            shown = [from_base64url(header[key]) for key in (thumbprint, "x5t") if key in header]
            signature_octets = from_base64url(signature)
            expires, begins = float(claims["exp"]), float(claims.get("nbf", 0))
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(50027) from error
        key = self.certificate.public_key() if self.certificate else None
        if self.certificate is None or not isinstance(key, rsa.RSAPublicKey):
            raise Refused(700027)
        known = [self.certificate.fingerprint(digest) for digest in (hashes.SHA1(), hashes.SHA256())]  # noqa: S303 - a name for it
        if not shown or any(fingerprint not in known for fingerprint in shown):
            raise Refused(700027, "No registered certificate has this thumbprint.")
        try:
            key.verify(signature_octets, signed.encode(), scheme, hashes.SHA256())
        except InvalidSignature as error:
            raise Refused(700027) from error
        if not claims.get("iss") == claims.get("sub") == self.application_id:
            raise Refused(700021)
        if claims.get("aud") not in token_endpoints:
            raise Refused(700023)
        if not begins - CLOCK_SKEW_S <= now <= expires + CLOCK_SKEW_S:
            raise Refused(700024)


@dataclass(frozen=True, slots=True)
class Scopes:
    """What one request asks for: OpenID's own scopes, and permissions on one resource."""

    oidc: frozenset[str]
    resource: str
    asked: tuple[str, ...]
    """The resource's scopes in the spelling of the request, which answers must echo (FACTS 4.3)."""

    @property
    def permissions(self) -> tuple[str, ...]:
        return tuple(scope.rpartition("/")[2] for scope in self.asked)

    @property
    def echo(self) -> str:
        return " ".join(self.asked)

    @classmethod
    def parse(cls, text: str) -> Scopes:
        """A bare name belongs to Graph, as at Microsoft. Raises: Refused: none, or more than one resource."""
        asked = tuple(scope for scope in text.split() if scope not in OIDC_SCOPES)
        resources = {scope.rpartition("/")[0].rstrip("/") or GRAPH for scope in asked}
        if len(resources) > 1:
            raise Refused(70011)
        if not resources:
            raise Refused(28003)
        return cls(frozenset(text.split()) & OIDC_SCOPES, resources.pop(), asked)

    def check(self, app: App) -> None:
        """Raises: Refused: no such permission at Exchange, or nobody consented to it."""
        if self.resource not in (*EXCHANGE, GRAPH):
            raise Refused(70011)
        if self.resource in EXCHANGE and any(p not in (*PERMISSIONS, ".default") for p in self.permissions):
            raise Refused(650053)
        undeclared = [p for p in self.permissions if p not in (*app.permissions, ".default")]
        if not app.consented or (self.resource in EXCHANGE and undeclared):
            raise Refused(65001)


@dataclass(slots=True)
class Directory:
    people: dict[str, Person] = field(default_factory=dict)
    """By case-folded UPN."""
    apps: dict[str, App] = field(default_factory=dict)

    def add_person(self, upn: str, password: str, also_may_open: Sequence[str]) -> None:
        self.people[upn.casefold()] = Person(upn, password, frozenset(m.casefold() for m in also_may_open))

    def person(self, upn: str) -> Person:
        """Raises: Refused: there is no such person."""
        try:
            return self.people[upn.casefold()]
        except KeyError:
            raise Refused(50034) from None

    def app(self, application_id: str | None, tenant: str) -> App:
        """Raises: Refused: unknown tenant or app, or the two do not fit."""
        self.check_tenant(tenant)
        if not application_id:
            raise Refused(90014, "The field is client_id.")
        if application_id not in self.apps:
            raise Refused(700016)
        self.apps[application_id].check_audience(tenant)
        return self.apps[application_id]

    def check_tenant(self, tenant: str) -> None:
        """Raises: Refused: neither ours, nor a shared one, nor the domain of a person here."""
        domains = {upn.rpartition("@")[2] for upn in self.people} - PERSONAL_DOMAINS
        if tenant not in (TENANT, CONSUMERS_TENANT, *SHARED_TENANTS) and tenant.casefold() not in domains:
            raise Refused(90002)


def read_certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def unsigned_jwt(claims: Mapping[str, Any]) -> str:
    """A token in the shape of a JWT; its signature is noise, since its readers look it up or do not check it."""
    head, body = (base64url(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "RS256"}, claims))
    return f"{head}.{body}.{base64url(hashlib.sha256(uuid.uuid4().bytes).digest() * 8)}"


def _same_address(asked: str, registered: str) -> bool:
    """Equal, but for the port of `http://localhost`; no path and the path `/` are one (FACTS 1.3)."""
    left, right = urlsplit(asked), urlsplit(registered)
    try:
        ports_agree = left.port == right.port or (left.scheme == "http" and left.hostname in ("localhost", "127.0.0.1"))
    except ValueError:
        return False
    return (
        ports_agree
        and (left.scheme, left.hostname, left.path or "/", left.query)
        == (right.scheme, right.hostname, right.path or "/", right.query)
        and not left.fragment
    )
