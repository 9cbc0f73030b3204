"""Microsoft's sign-in service: the only door to msal. Every call ends in a typed outcome.

What it is: each way to get tokens as one call, run in a thread pool, because msal blocks (FACTS 4.7). What it is not:
it keeps no token and decides nothing about accounts. Who calls it: `tokens.py` refreshes, `sign_in.py` signs people in.

An msal application lives for one call. So its cache of failures (FACTS 4.4) ends with the call: when to ask again is
decided in `tokens.py` alone. Of two calls only the discovery document is shared, until a person begins a sign-in.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msal
import requests
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from msal.exceptions import MsalServiceError
from requests.adapters import HTTPAdapter
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from urllib3.util import Retry

from proxy.accounts.outcomes import (
    AppMisconfigured,
    CodeFlow,
    DeviceFlow,
    Granted,
    NotGranted,
    Outcome,
    SignInAgain,
    SignInError,
    StillPending,
    TryLater,
    sort_error,
)
from proxy.accounts.permissions import scopes
from proxy.config.settings import App

TIMEOUT_S = (5.0, 20.0)  # to connect, and for each read; msal's default is to wait for ever (FACTS 4.1)
POOL_THREADS = 8  # calls under way at once; further ones queue
# To connect is tried twice. A request that was sent is not sent again: it may have used up a code or a refresh token.
# And nobody sleeps in the pool for as long as a Retry-After says, as urllib3 would.
RETRIES = Retry(1, read=False, respect_retry_after_header=False)
DEFAULT_LIFE_S = 600  # of a token issued without `expires_in` (RFC 6749 §5.1); msal assumes the same
MIN_POLL_INTERVAL_S = 1  # msal would poll without a pause at 0
SLOW_DOWN_S = 5  # RFC 8628 §3.5: what `slow_down` adds to the interval

_ANSWER_FIELDS = ("state", "code", "error", "error_description")  # RFC 6749 §4.1.2
_PENDING_ERRORS = frozenset({"authorization_pending", "slow_down"})  # RFC 8628 §3.5


T = TypeVar("T")


class Microsoft:
    """The calls. The pool is the caller's: it starts and stops it (FACTS 7.2: never the reactor's own pool)."""

    def __init__(self, pool: ThreadPool, reactor: IReactorFromThreads) -> None:
        self._pool = pool
        self._reactor = reactor
        self._discovered: dict[App, requests.Response] = {}
        # msal logs whole answers when they are not JSON, and codes at DEBUG (FACTS 4.2, 4.4); outcomes say it better.
        logging.getLogger("msal").setLevel(logging.CRITICAL)
        # The answer must stand in the address, or nobody could paste it; PKCE guards it.
        warnings.filterwarnings("ignore", message="response_mode=", category=UserWarning)

    def refresh(self, app: App, cache: str) -> Deferred[Outcome]:
        """A new access token for the person whose grant `cache` holds."""

        def ask(call: _Call) -> Outcome:
            accounts = call.application.get_accounts()
            # Forced: who asks has looked at its own token first; msal's copy is the same one.
            result = accounts and call.application.acquire_token_silent_with_error(
                scopes(app), account=accounts[0], force_refresh=True
            )
            return call.outcome(result) if result else SignInAgain(SignInError("no_grant", text="No grant is stored."))

        return self._in_thread(app, ask, cache)

    def client_token(self, app: App) -> Deferred[Outcome]:
        """A new access token for the app itself (client credentials)."""
        return self._in_thread(app, lambda call: call.outcome(call.application.acquire_token_for_client(scopes(app))))

    def begin_code(self, app: App, redirect_uri: str, login_hint: str) -> Deferred[CodeFlow | NotGranted]:
        """Begin a sign-in in a browser. The answer arrives at `redirect_uri`, by GET."""

        def begin(call: _Call) -> CodeFlow:
            flow = call.application.initiate_auth_code_flow(
                scopes(app), redirect_uri=redirect_uri, login_hint=login_hint
            )
            return CodeFlow(flow["state"], flow["auth_uri"], flow)

        self._discovered.pop(app, None)
        return self._in_thread(app, begin)

    def redeem_code(self, app: App, flow: CodeFlow, query: Mapping[str, str]) -> Deferred[Outcome]:
        """Redeem the answer that came to the redirect URI. Once: a code is good for one use."""

        def redeem(call: _Call) -> Outcome:
            if query.get("state") != flow.state or not (query.get("code") or query.get("error")):
                return SignInAgain(SignInError("answer_mismatch", text="The answer does not belong to this sign-in."))
            try:
                answer = {name: query[name] for name in _ANSWER_FIELDS if name in query}
                result = call.application.acquire_token_by_auth_code_flow(dict(flow.secrets), answer)
            except RuntimeError:  # msal's word for a wrong nonce
                return SignInAgain(SignInError("nonce_mismatch", text="The token was made for another sign-in."))
            return call.outcome(result)

        return self._in_thread(app, redeem)

    def begin_device(self, app: App) -> Deferred[DeviceFlow | NotGranted]:
        """Begin a sign-in by device code."""

        def begin(call: _Call) -> DeviceFlow | NotGranted:
            flow = call.application.initiate_device_flow(scopes(app))
            if "user_code" not in flow:  # FACTS 4.2: a failed start looks like a flow otherwise
                return call.refusal(flow)
            return DeviceFlow(
                user_code=flow["user_code"],
                address=flow["verification_uri"],
                message=flow.get("message") or f"Open {flow['verification_uri']} and enter {flow['user_code']}.",
                expires_at_s=flow["expires_at"],
                interval_s=max(flow["interval"], MIN_POLL_INTERVAL_S),
                secrets=flow,
            )

        self._discovered.pop(app, None)
        if app.client_secret or app.certificate:
            text = "Device codes need an app without a secret: use the browser, or another app registration."
            return succeed(AppMisconfigured(SignInError("device_code_with_secret", text=text)))
        return self._in_thread(app, begin)

    def poll_device(self, app: App, flow: DeviceFlow) -> Deferred[Outcome | StillPending]:
        """Ask once whether the person has finished; the caller keeps the time (FACTS 4.2)."""

        def poll(call: _Call) -> Outcome | StillPending:
            # msal writes into what it is given, and would pause for `interval` times one second.
            result = call.application.acquire_token_by_device_flow(
                {**flow.secrets, "interval": MIN_POLL_INTERVAL_S}, exit_condition=lambda _: True
            )
            if result.get("error") in _PENDING_ERRORS:
                return StillPending(flow.interval_s + (SLOW_DOWN_S if result["error"] == "slow_down" else 0))
            return call.outcome(result)

        return self._in_thread(app, poll)

    def redeem_refresh_token(self, app: App, refresh_token: str) -> Deferred[Outcome]:
        """Tokens for a refresh token that another program was granted, with the same app (RFC 6749 §6)."""

        def redeem(call: _Call) -> Outcome:
            return call.outcome(call.application.acquire_token_by_refresh_token(refresh_token, scopes(app)))

        return self._in_thread(app, redeem)

    def _in_thread(self, app: App, work: Callable[[_Call], T], cache: str = "") -> Deferred[T | NotGranted]:
        return deferToThreadPool(self._reactor, self._pool, self._perform, app, work, cache)

    def _perform(self, app: App, work: Callable[[_Call], T], cache: str) -> T | NotGranted:
        """Build the msal application, do the work, and give every foreseeable failure its outcome (FACTS 4.5)."""
        try:
            http = _Http(app.ca_file, self._discovered.get(app))
        except OSError as error:
            return _unreadable(app, error)
        try:
            call = _Call(app, http, cache)
            if http.discovered is not None:
                self._discovered[app] = http.discovered
            return work(call)
        except _Stopped as stop:
            return stop.outcome
        except requests.RequestException as error:
            return TryLater(SignInError("network_error", text=_network_text(app, error)))
        except MsalServiceError:
            return http.later()
        except OSError as error:
            return _unreadable(app, error)
        except (ValueError, LookupError, TypeError, AttributeError, RuntimeError):  # not JSON, or JSON of another shape
            return http.later()
        finally:
            http.close()


class _Stopped(Exception):
    """No call can be made; the outcome says why."""

    def __init__(self, outcome: NotGranted) -> None:
        super().__init__(outcome.error.code)
        self.outcome = outcome


def _misconfigured(code: str, text: str) -> _Stopped:
    return _Stopped(AppMisconfigured(SignInError(code, text=text)))


class _Adapter(HTTPAdapter):
    """Trusts the system's roots and a private authority, if there is one, beside those that requests brings."""

    def __init__(self, ca_file: Path | None) -> None:
        self._context = ssl.create_default_context()
        if ca_file is not None:
            self._context.load_verify_locations(ca_file)
        super().__init__(max_retries=RETRIES)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **settings: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **settings)

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **settings)


class _Http:
    """msal's HTTP (FACTS 4.6): every wait is bounded, and the last answer's status is remembered."""

    def __init__(self, ca_file: Path | None, discovered: requests.Response | None) -> None:
        self._session = requests.Session()
        self._session.mount("https://", _Adapter(ca_file))
        self._last: requests.Response | None = None
        self.discovered = discovered
        """The discovery document's answer, once there is one: msal gets nothing else."""

    def get(self, url: str) -> requests.Response:
        if self.discovered is None:
            self._last = self._session.get(url, timeout=TIMEOUT_S)
            if not _is_json_object(self._last):
                return self._last
            self.discovered = self._last
        return self.discovered

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        self._last = self._session.post(url, params=params, data=data, headers=headers, timeout=TIMEOUT_S)
        return self._last

    def close(self) -> None:
        """Let go of the TLS context too, some megabytes: msal's objects hold each other, and so us, for long."""
        self._session.close()
        self._session.adapters.clear()
        self._last = None  # an answer knows its adapter

    @property
    def status(self) -> int:
        """Of the last answer; 0 if none came."""
        return self._last.status_code if self._last is not None else 0

    def refusal(self) -> dict[str, object]:
        """What the last answer says of an error in Microsoft's own way; empty if it says nothing."""
        try:
            said = json.loads(self._last.text) if self._last is not None else None
        except ValueError:
            return {}
        return said if isinstance(said, dict) and said.get("error_codes") else {}

    def later(self) -> TryLater:
        """The outcome of an answer that is none: an error of HTTP, or a page where JSON was due."""
        wait = self._last.headers.get("Retry-After", "") if self._last is not None else ""
        troubled = self.status == 429 or self.status >= 500
        if troubled:
            error = SignInError("service_unavailable", text=f"The sign-in service answered with HTTP {self.status}.")
        else:
            text = "Something that is not the sign-in service answered in its place; a network's log-in page, perhaps."
            error = SignInError("unreadable_answer", text=text)
        return TryLater(error, float(wait) if wait.isascii() and wait.isdigit() else None)


class _Call:
    """One msal application with its token cache, for one call in one thread."""

    def __init__(self, app: App, http: _Http, cache: str) -> None:
        self._http = http
        self._cache = msal.SerializableTokenCache()
        self._cache.deserialize(cache)
        credential = _credential(app)
        build = msal.PublicClientApplication if credential is None else msal.ConfidentialClientApplication
        try:
            self.application = build(
                app.application_id,
                client_credential=credential,
                authority=app.authority,
                token_cache=self._cache,
                http_client=http,
                # Our authorities are known, and a failure to look up their aliases would hide the answer that came.
                instance_discovery=False,
            )
        except ValueError:
            if http.discovered is None and http.status in (0, 400, 404):  # 0: no address msal would ask
                if refusal := http.refusal():  # the service says itself which directory it does not know, and where
                    raise _Stopped(sort_error(refusal)) from None
                raise _misconfigured("bad_authority", f"There is no directory at {app.authority}.") from None
            raise

    def outcome(self, result: Mapping[str, object]) -> Outcome:
        """What msal's answer comes to."""
        token = result.get("access_token")
        if not isinstance(token, str):
            return self.refusal(result)
        life_s = int(str(result.get("expires_in", DEFAULT_LIFE_S)))
        accounts = self.application.get_accounts()
        claims = result.get("id_token_claims")
        name = claims.get("preferred_username") if isinstance(claims, dict) else None
        return Granted(
            access_token=token,
            expires_at_s=time.time() + life_s,
            cache=self._cache.serialize() if accounts else "",
            username=str(name or (accounts[0]["username"] if accounts else "")),
            home_account_id=accounts[0]["home_account_id"] if accounts else "",
        )

    def refusal(self, answer: Mapping[str, object]) -> NotGranted:
        """What an answer without a token comes to."""
        later = self._http.later()
        if later.error.code == "service_unavailable" or "error" not in answer:
            return later
        refused = sort_error(answer, later.retry_after_s)
        changed = isinstance(refused, TryLater) and self._cache.has_state_changed
        return replace(refused, cache=self._cache.serialize()) if changed else refused


def _credential(app: App) -> str | dict[str, str] | None:
    """What makes msal's application a confidential one; None for a public one.

    Raises:
        OSError: a file cannot be read.
        _Stopped: it is no certificate, or no RSA key.
    """
    if app.certificate is None:
        return app.client_secret.value if app.client_secret else None
    certificate, key = app.certificate.file.read_bytes(), app.certificate.key.read_bytes()
    try:
        load_pem_x509_certificate(certificate)
        fit = isinstance(load_pem_private_key(key, password=None), RSAPrivateKey)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        fit = False
    if not fit:
        text = f"{app.certificate.file} and {app.certificate.key} are not a PEM certificate and its open RSA key."
        raise _misconfigured("bad_certificate", text)
    return {"private_key": key.decode(), "public_certificate": certificate.decode()}  # FACTS 4.2


def _is_json_object(answer: requests.Response) -> bool:
    try:
        return answer.ok and isinstance(json.loads(answer.text), dict)
    except ValueError:
        return False


def _unreadable(app: App, error: OSError) -> AppMisconfigured:
    text = f"A file of app {app.name} cannot be read: {error.filename or app.ca_file}."
    return AppMisconfigured(SignInError("unreadable_file", text=text))


def _network_text(app: App, error: requests.RequestException) -> str:
    host = urlsplit(app.authority).netloc
    match error:
        case requests.exceptions.SSLError():
            return f"The certificate of {host} is not trusted, or TLS fails; see the app's ca_file."
        case requests.exceptions.ProxyError():
            return f"The proxy on the way to {host} does not answer; see $HTTPS_PROXY."
        case requests.exceptions.Timeout():
            return f"The sign-in service {host} does not answer in time."
        case _:
            return f"The sign-in service {host} cannot be reached."
