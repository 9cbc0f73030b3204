"""The app registration as the sign-in service sees it: directory, id, redirect address, kind, secret.

What it asks is what a program asks before anybody signs in; nobody is bothered, and what comes (a device code that is
never shown, an app's own token) is thrown away. What it is not: a sign-in (`grant.py` tells of those).
`examination.py` calls it.
"""

from __future__ import annotations

import datetime
import re
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from proxy.accounts.permissions import consent_address, scopes
from proxy.accounts.states import secret_warning
from proxy.app.doctor.certificates import read_chain
from proxy.app.doctor.findings import Finding, Verdict, explained, fail, ok, warn
from proxy.app.doctor.lines import Answered, LineTrouble, ask
from proxy.app.doctor.scene import Scene, sign_in_place
from proxy.config import App
from proxy.config.settings import Flow
from proxy.explanations import aadsts_codes, explain_sign_in
from proxy.login import Fault, Refusal

CHECK = "registration"
RENEW_BEFORE = datetime.timedelta(days=30)
_PENDING = ("authorization_pending", "slow_down")
_OF_THE_APP = frozenset(  # what an authorize page says of the app; it also says things of people, who are not there
    {50011, 50194, 65001, 70011, 90002, 90094, 650057, 700011, 700016, 700022, 9002331, 9002332}
)
_UNKNOWN_APP = frozenset({700016, 700011})
_PUBLIC_FLOWS_OFF = 7000218
Form = Mapping[str, str]


def check_app(scene: Scene, app: App) -> Iterator[Finding]:
    """What is wrong with this app; or that nothing is, as far as the sign-in service tells."""
    title = f"App {app.name}"
    if not app.enabled:
        used = any(account.app.name == app.name for account in scene.config.accounts)
        finding = fail(
            CHECK,
            title,
            "It is switched off, so none of its accounts can log in." if used else "It is switched off.",
            Fault.MAILFERRY,
            f"Switch it on: mailferry app change {app.name} --enable",
        )
        yield finding if used else _as_warning(finding)
        return
    if sign_in_place(app).name in scene.out_of_reach:
        return
    try:
        troubles = list(_Questions(scene, app).ask_all())
    except LineTrouble as trouble:
        text = f"The sign-in service {sign_in_place(app).host} {trouble.text}."
        yield fail(CHECK, title, text, Fault.NETWORK, "See to the way there, then run this again.")
        return
    troubles += [*_certificate(app), *_secret(app)]
    yield from troubles
    if all(trouble.verdict is Verdict.OK for trouble in troubles):
        yield ok(CHECK, title, f"The sign-in service knows the directory and the app; {_kind(app)}.")


class _Questions:
    """The questions about one app, in the order in which the answers say most."""

    def __init__(self, scene: Scene, app: App) -> None:
        self._scene = scene
        self._app = app
        self._title = f"App {app.name}"

    def ask_all(self) -> Iterator[Finding]:
        """Troubles only; the first one that explains all ends it. Raises: LineTrouble."""
        directory = self._get("/v2.0/.well-known/openid-configuration")
        if trouble := self._directory(directory):
            yield trouble
            return
        if trouble := self._authorize():
            yield trouble
            return
        asked = self._app_only() if self._app.flow is Flow.APP_ONLY else self._delegated()
        yield from filter(None, [asked])

    def _directory(self, answer: Answered) -> Finding | None:
        document = answer.document
        if answer.status == 200 and document and "token_endpoint" in document:
            return None
        if trouble := self._troubled(answer):
            return trouble
        codes = _codes(document)
        tenant = urlsplit(self._app.authority).path.strip("/").partition("/")[0]
        if document is None and answer.status == 200:
            return fail(
                CHECK,
                self._title,
                "Something that is not the sign-in service answered in its place; a network's log-in page, perhaps.",
                Fault.NETWORK,
                "Open a web page in a browser on this machine and log in to the network; then run this again.",
            )
        key = "authority" if self._app.own_authority else "account_types"
        return fail(
            CHECK,
            self._title,
            f"Microsoft knows no directory {tenant!r}" + ("" if codes else f" (HTTP {answer.status})") + ".",
            Fault.MAILFERRY,
            f"Write the Directory (tenant) ID of the app's Overview page into {key}; if it is right, check its cloud.",
            details=_words(document),
        )

    def _authorize(self) -> Finding | None:
        """As a browser asks, for a sign-in without a person: only what is said of the app counts."""
        if self._app.flow is Flow.APP_ONLY:
            return None
        query = {
            "client_id": self._app.application_id,
            "response_type": "code",
            "redirect_uri": self._app.redirect_uri,
            "scope": " ".join([*scopes(self._app), "offline_access"]),
            "prompt": "none",
            "code_challenge": secrets.token_urlsafe(32),
            "code_challenge_method": "S256",
            "state": "doctor",
        }
        answer = self._get(f"/oauth2/v2.0/authorize?{urlencode(query)}")
        said = answer.text
        if answer.status in (302, 303):
            said = dict(parse_qsl(urlsplit(answer.headers.get("location", "")).query)).get("error_description", "")
        codes = [code for code in aadsts_codes(said) if code in _OF_THE_APP]
        return self._refused(codes, "", []) if codes else None

    def _delegated(self) -> Finding | None:
        begun = self._post("/oauth2/v2.0/devicecode", {"scope": " ".join([*scopes(self._app), "offline_access"])})
        document = begun.document or {}
        if "device_code" not in document:
            return self._troubled(begun) or self._told(begun)
        if self._app.certificate:
            return None
        if secret := self._app.client_secret:
            no_grant = secrets.token_urlsafe(32)  # the app's proof is looked at before the grant
            form = {"grant_type": "refresh_token", "refresh_token": no_grant, "client_secret": secret.value}
            answer = self._post("/oauth2/v2.0/token", form)
            proven = (answer.document or {}).get("error") not in ("invalid_client", "unauthorized_client")
            return self._troubled(answer) or (None if proven else self._told(answer))
        polled = self._post(
            "/oauth2/v2.0/token",
            {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": str(document["device_code"])},
        )
        if (polled.document or {}).get("error") in _PENDING:
            return None
        if _PUBLIC_FLOWS_OFF in _codes(polled.document):
            return fail(
                CHECK,
                self._title,
                "The app is registered as one that has a secret, and none is configured: public client flows are off.",
                Fault.MAILFERRY,
                'In the app registration, under Authentication, set "Allow public client flows" to Yes; '
                "or make a client secret and configure client_secret.",
                details=_words(polled.document),
            )
        return self._troubled(polled) or self._told(polled)

    def _app_only(self) -> Finding | None:
        secret = self._app.client_secret
        if secret is None:
            return None  # a certificate signs its own proof: the account's sign-in shows whether it is taken
        form = {"grant_type": "client_credentials", "client_secret": secret.value, "scope": " ".join(scopes(self._app))}
        answer = self._post("/oauth2/v2.0/token", form)
        if "access_token" in (answer.document or {}):
            return None
        return self._troubled(answer) or self._told(answer)

    # --- asking, and what an answer comes to

    def _get(self, path: str) -> Answered:
        return ask(f"{self._app.authority}{path}", ca_file=self._app.ca_file, environ=self._scene.environ)

    def _post(self, path: str, form: Form) -> Answered:
        return ask(
            f"{self._app.authority}{path}",
            ca_file=self._app.ca_file,
            environ=self._scene.environ,
            form={"client_id": self._app.application_id, **form},
        )

    def _troubled(self, answer: Answered) -> Finding | None:
        """Too many questions, or a service that is down: nothing is known of the app then."""
        if answer.status != 429 and answer.status < 500:
            return None
        return warn(
            CHECK,
            self._title,
            f"The sign-in service answers with HTTP {answer.status}, so it could not be asked about the app.",
            Fault.MICROSOFT_SIGN_IN,
            "Wait some minutes, then run this again.",
            "nobody",
        )

    def _told(self, answer: Answered) -> Finding:
        error = str((answer.document or {}).get("error", f"HTTP {answer.status}"))
        return self._refused(_codes(answer.document), error, _words(answer.document))

    def _refused(self, codes: list[int], error: str, words: list[str]) -> Finding:
        if _UNKNOWN_APP & set(codes):
            return fail(
                CHECK,
                self._title,
                f"The directory exists, but Microsoft knows no application {self._app.application_id} in it.",
                Fault.MAILFERRY,
                "Compare application_id with the Application (client) ID of the app's Overview page (no other ID); "
                f"if the app belongs to another organisation, an administrator must open {consent_address(self._app)}",
                details=words,
            )
        row = explain_sign_in(error, codes).for_(consent=consent_address(self._app), app=self._app.name)
        if row.refusal is Refusal.TRY_LATER and row.known:
            return warn(CHECK, self._title, row.cause, row.fault, row.remedy, row.who, words)
        return explained(CHECK, self._title, row, *words)


def _certificate(app: App) -> Iterator[Finding]:
    """The end of an app's certificate, which the portal mails nobody about."""
    if app.certificate is None:
        return
    title = f"Certificate of app {app.name}"
    try:
        chain = read_chain([ssl.PEM_cert_to_DER_cert(_first_certificate(app.certificate.file.read_text()))])
    except (OSError, ValueError):
        chain = ()
    if not chain:
        yield fail(
            CHECK,
            title,
            f"{app.certificate.file} cannot be read as a PEM certificate.",
            Fault.MAILFERRY,
            f"Name a PEM certificate and its key under apps.{app.name}.certificate.",
        )
        return
    left = chain[0].ends - datetime.datetime.now(datetime.UTC)
    if left < RENEW_BEFORE:
        tell = fail if left < datetime.timedelta() else warn
        word = "ended" if left < datetime.timedelta() else "ends"
        yield tell(
            CHECK,
            title,
            f"It {word} on {chain[0].ends:%Y-%m-%d}.",
            Fault.MAILFERRY,
            "Make a new one, upload it to the app registration, and put it in the old one's place.",
        )


def _secret(app: App) -> Iterator[Finding]:
    """The end of a client secret, where the configuration tells it."""
    if app.client_secret and (text := secret_warning(app, time.time())):
        cause, _, remedy = text.partition("). ")
        yield warn(CHECK, f"Client secret of app {app.name}", f"{cause}).", Fault.MAILFERRY, remedy)


def _first_certificate(text: str) -> str:
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL)
    return found[0] if found else ""


def _codes(document: Mapping[str, object] | None) -> list[int]:
    document = document or {}
    codes = document.get("error_codes")
    if isinstance(codes, list):
        return [code for code in codes if isinstance(code, int)]
    return list(aadsts_codes(str(document.get("error_description", ""))))


def _words(document: Mapping[str, object] | None) -> list[str]:
    """Microsoft's own, for whoever looks them up: one line."""
    said = " ".join(str((document or {}).get("error_description", "")).split())[:300]
    return [f"Microsoft's own words: {said}"] if said else []


def _kind(app: App) -> str:
    if app.flow is Flow.APP_ONLY:
        return "it signs in by itself"
    if app.client_secret:
        return "its client secret is taken"
    return "it shows a certificate" if app.certificate else "it is a public client"


def _as_warning(finding: Finding) -> Finding:
    return Finding(
        finding.check, Verdict.WARN, finding.title, finding.cause, finding.fault, finding.remedy, finding.who
    )
