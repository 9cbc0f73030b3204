"""A stand-in for Microsoft's sign-in service, over real TLS on loopback and as strict as Entra.

What it is: what msal, the daemon, Dovecot's oauth2 passdb and a person's browser talk to in the practice harbour, in
tests and on the bench. What it is not: secure, or Microsoft; the people in it approve what they are told to. The
rules are in `directory.py`, codes and tokens in `grants.py`, the HTTP in `doors.py`; this file joins them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.demo.certificates import LocalCertificate, local_certificate
from proxy.demo.directory import (
    EXCHANGE_SCOPES,
    PERMISSIONS,
    SHARED_TENANTS,
    TENANT,
    App,
    Directory,
    Refused,
    Scopes,
    read_certificate,
)
from proxy.demo.doors import AUTHORIZE, DEVICE_CODE, DISCOVERY, INTROSPECTION, TOKEN, Failure, Server
from proxy.demo.grants import Grants

__all__ = ["EVERYWHERE", "EXCHANGE_SCOPES", "TENANT", "Failure", "IdentityProvider", "Refused"]

# What the person reads at Microsoft, and no program is told of: the app, its redirect URI, or the account is wrong.
STAYS_AT_MICROSOFT = frozenset((50011, 50020, 50034, 50105, 50194, 90002, 500208, 700011, 700016, 9002331, 9002332))
HANG_LIMIT_S = 60  # `Failure.HANGS` lets go after this long, or at `heal()`
EVERYWHERE = (DISCOVERY, AUTHORIZE, TOKEN, DEVICE_CODE)


class IdentityProvider:
    """The service, on its own threads between `start` and `stop`, or as a context manager.

    Public methods may be called from any thread. `requests` lists each request as (endpoint, grant type or "").
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        access_token_lifetime_s: int = 3600,
        device_interval_s: int = 5,
        single_use_refresh_tokens: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder` gets (or has) `ca.pem` and the server's certificate; port 0 takes a free one.

        `device_interval_s` must not be 0: msal would poll for ever without a pause.
        """
        self._certificate: LocalCertificate = local_certificate(folder)
        self._port = port
        self._clock = clock
        self._lock = threading.RLock()
        self._directory = Directory()
        self._grants = Grants(
            self._directory, clock, access_token_lifetime_s, device_interval_s, single_use_refresh_tokens
        )
        self._person_at_browser: str | None = None
        self._declines = False
        self._failure: tuple[Failure | Refused, int | None, Collection[str]] | None = None
        self._let_go = threading.Event()
        self._server: Server | None = None
        self.requests: list[tuple[str, str]] = []

    # Life

    def start(self) -> None:
        """Listen; after a `stop` on the same port again."""
        self._let_go.clear()
        self._server = Server(self._port, self._certificate.server_context(), self)
        self._port = self._server.server_port
        self._grants.issuer = f"{self.authority}/v2.0"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="identity", daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection; people, apps and tokens stay."""
        self._let_go.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base(self) -> str:
        return f"https://localhost:{self._port}"

    @property
    def authority(self) -> str:
        return f"{self.base}/{TENANT}"

    @property
    def introspection_url(self) -> str:
        """RFC 7662 in shape: the token as a form field or query field `token`, or as Bearer authorization."""
        return f"{self.base}/{INTROSPECTION}"

    @property
    def ca_file(self) -> Path:
        return self._certificate.ca_file

    # The directory

    def add_person(self, upn: str, password: str = "practice", *, also_may_open: Sequence[str] = ()) -> None:  # noqa: S107 - a toy's
        """A work account, or a personal one if the domain is Outlook.com's. It opens its own mailbox and these."""
        with self._lock:
            self._directory.add_person(upn, password, also_may_open)

    def add_app(
        self,
        application_id: str,
        *,
        redirect_uris: Sequence[str] = ("http://localhost",),
        public: bool = True,
        secret: str | None = None,
        certificate: Path | None = None,
        account_types: str = "organizations",
        permissions: Sequence[str] = PERMISSIONS,
        consented: bool = True,
        app_only: bool = False,
        may_open: Sequence[str] = (),
    ) -> App:
        """A registration; the `App` returned may be changed later (`consented`). `certificate`: a PEM file."""
        app = App(
            application_id=application_id,
            redirect_uris=tuple(redirect_uris),
            public=public,
            secret=secret,
            certificate=read_certificate(certificate) if certificate else None,
            account_types=account_types,
            permissions=tuple(permissions),
            consented=consented,
            app_only=app_only,
            may_open=frozenset(may_open),
        )
        with self._lock:
            self._directory.apps[application_id] = app
        return app

    # The person, at a browser or another device

    def sign_in_as(self, upn: str, *, declines: bool = False) -> None:
        """Who answers the next `/authorize` pages, and whether this person says no to the app."""
        self._person_at_browser, self._declines = upn, declines

    def approve_device(self, user_code: str, upn: str) -> None:
        """Raises: Refused: no such code, or no such person."""
        with self._lock:
            self._grants.decide_device(user_code, self._directory.person(upn))

    def deny_device(self, user_code: str) -> None:
        with self._lock:
            self._grants.decide_device(user_code, None)

    # Tokens

    def issue(self, upn: str, *, lifetime_s: int | None = None, scopes: Sequence[str] = EXCHANGE_SCOPES) -> str:
        """An access token without the dance."""
        with self._lock:
            lifetime_s = self._grants.access_token_lifetime_s if lifetime_s is None else lifetime_s
            return self._grants.issue(self._directory.person(upn), Scopes.parse(" ".join(scopes)), lifetime_s)

    def issue_for(self, lifetime_s: int) -> None:
        """How long access tokens live from now on; with 0 every login needs a refresh."""
        with self._lock:
            self._grants.access_token_lifetime_s = lifetime_s

    def user_of(self, token: str) -> str | None:
        """The UPN behind a valid token for Exchange; None for any other."""
        with self._lock:
            found = self._grants.look_up(token)
        return found.user_name if found else None

    def may_open(self, token: str, mailbox: str) -> bool:
        """Whether Exchange would open this mailbox for it by IMAP or POP (FACTS 2.6)."""
        with self._lock:
            found = self._grants.look_up(token)
        return found is not None and mailbox.casefold() in found.mailboxes

    def revoke(self, upn: str) -> None:
        """Refresh and access tokens of this person, as after a changed password."""
        with self._lock:
            self._grants.revoke(self._directory.person(upn))

    # Failures

    def fail(self, kind: Failure | Refused, times: int | None = None, *, at: Collection[str] = (TOKEN,)) -> None:
        """Answer requests at these endpoints so, `times` often or until `heal`.

        A refusal at AUTHORIZE goes back to the redirect URI if that is a good one, and else stays on a page.
        """
        self._let_go.clear()
        self._failure = (kind, times, at)

    def heal(self) -> None:
        """Answer rightly again; who hangs is let go."""
        self._failure = None
        self._let_go.set()

    def failure_at(self, endpoint: str) -> Failure | Refused | None:
        """The failure due at this request, counted. (For the doors below.)"""
        with self._lock:
            if self._failure is None or endpoint not in self._failure[2]:
                return None
            kind, times, at = self._failure
            if times is not None:
                self._failure = (kind, times - 1, at) if times > 1 else None
            return kind

    def hang(self) -> None:
        self._let_go.wait(HANG_LIMIT_S)

    # The doors' own questions

    def discovery(self, tenant: str) -> dict[str, Any]:
        """OpenID Connect Discovery §3. Raises: Refused."""
        with self._lock:
            self._directory.check_tenant(tenant)
        oauth2 = f"{self.base}/{tenant}/oauth2/v2.0"
        return {
            "issuer": f"{self.base}/{TENANT if tenant in SHARED_TENANTS else tenant}/v2.0",
            "authorization_endpoint": f"{oauth2}/authorize",
            "token_endpoint": f"{oauth2}/token",
            "device_authorization_endpoint": f"{oauth2}/devicecode",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "form_post"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def authorize(self, tenant: str, query: dict[str, str], planted: Refused | None = None) -> dict[str, str]:
        """The fields to send to the redirect URI, which is good. Raises: Refused: stay on an error page."""
        with self._lock:
            app = self._directory.app(query.get("client_id"), tenant)
            app.check_redirect_uri(query.get("redirect_uri", ""))
            try:
                if planted is not None:
                    raise planted
                who = self._person_at_browser or query.get("login_hint")
                if who is None:
                    raise Refused(50058)
                person = self._directory.person(who)
                if self._declines:
                    raise Refused(65004)
                fields = {"code": self._grants.authorize(app, person, tenant, query)}
            except Refused as refused:
                if refused.code in STAYS_AT_MICROSOFT:
                    raise
                error = "consent_required" if refused.code == 65001 else refused.error
                fields = {"error": error, "error_description": refused.description(self._clock())}
            return fields | ({"state": query["state"]} if "state" in query else {})

    def token(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        """Raises: Refused."""
        with self._lock:
            app = self._directory.app(form.get("client_id"), tenant)
            endpoints = [f"{self.base}/{name}/oauth2/v2.0/token" for name in {tenant, TENANT}]
            app.check_proof(form, endpoints, self._clock())
            return self._grants.token(app, tenant, form)

    def start_device(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        """Raises: Refused."""
        with self._lock:
            app = self._directory.app(form.get("client_id"), tenant)
            return self._grants.start_device(app, form, f"{self.base}/devicelogin")

    def introspect(self, token: str) -> dict[str, Any]:
        with self._lock:
            found = self._grants.look_up(token)
        if found is None:
            return {"active": False}
        return {
            "active": True,
            "username": found.user_name or "",
            "scope": found.scope,
            "aud": found.audience,
            "client_id": found.app.application_id if found.app else "",
            "exp": int(found.expires),
            "iat": int(found.issued),
        }
