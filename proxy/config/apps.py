"""GROUND: `apps`: Entra app registrations, and what can be known wrong about one before Microsoft is asked.

FACTS 1.2 (account types and flows), 1.3 (redirect addresses, secrets). Called by `read.py`.
"""

from __future__ import annotations

import datetime
import re
from urllib.parse import urlsplit

from proxy.config.clouds import SIGN_IN_HOSTS
from proxy.config.document import Node
from proxy.config.fields import HOST, Reading, Section, nearest
from proxy.config.findings import quoted
from proxy.config.settings import App, Cloud, Flow
from proxy.config.sources import certificate, secret, trusted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_REDIRECT_CHARACTERS = 256  # FACTS 1.3
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_AUDIENCES = ("consumers", "organizations", "common")
_ASK_FOR_TENANT = "write the directory (tenant) id of the app's Overview page, or the organisation's domain"


def read_app(name: str, node: Node, reading: Reading) -> App:
    """The app of this name. Where something is wrong, a finding is told and the app is only a stand-in."""
    with Section(node, reading) as section:
        if not NAME.fullmatch(name):
            section.error(node.place, f"{quoted(name)} is no good name", "use up to 64 of A-Z a-z 0-9 . _ -")
        flow = section.member("flow", Flow, Flow.DELEGATED)
        cloud = section.member("cloud", Cloud, Cloud.GLOBAL)
        own_authority = _read_authority(section)
        audience = own_authority.rsplit("/", 1)[-1] if own_authority else "organizations"
        account_types = _read_account_types(section, audience)
        _check_flow(section, flow, audience if own_authority else account_types)
        app = App(
            name=name,
            application_id=_read_application_id(section),
            account_types=account_types,
            authority=own_authority or f"https://{SIGN_IN_HOSTS[cloud]}/{account_types}",
            own_authority=bool(own_authority),
            client_secret=secret(section, "client_secret"),
            certificate=certificate(section, "certificate"),
            flow=flow,
            cloud=cloud,
            redirect_uri=_read_redirect_uri(section),
            enabled=section.flag("enabled", True),
            ca_file=trusted(section),
            client_secret_expires=_read_secret_end(section),
        )
        section.forbidden(
            "scopes", "scopes cannot be chosen", "remove it: mailferry asks for IMAP, POP and SMTP together"
        )
        _check_secret(section, app)
        if not app.enabled:
            section.warning(section.at("enabled"), f"app {quoted(name)} is switched off", "its accounts cannot sign in")
    return app


def _read_application_id(section: Section) -> str:
    text = section.text("application_id")
    ask = "write the Application (client) ID of the app's Overview page; not the Object ID, not a Secret ID"
    if not section.has("application_id"):
        section.missing("application_id", ask)
    elif text and not _GUID.fullmatch(text):
        section.error(section.at("application_id"), f"{quoted(text)} is not an application id", ask)
    return text.lower()


def _read_account_types(section: Section, default: str) -> str:
    text = section.text("account_types", default)
    is_domain = "." in text and HOST.fullmatch(text)
    if section.has("account_types") and not (text in _AUDIENCES or _GUID.fullmatch(text) or is_domain):
        near = nearest(text, list(_AUDIENCES))
        remedy = f"write one of {', '.join(_AUDIENCES)}, a directory id or a domain"
        section.error(
            section.at("account_types"),
            f"{quoted(text)} is not known",
            f"{remedy}; did you mean {near}?" if near else remedy,
        )
        return default
    return text


def _read_authority(section: Section) -> str:
    """The whole authority as given, without a slash at its end; empty when none is given."""
    text = section.text("authority").rstrip("/")
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        good = bool(parts.scheme == "https" and parts.hostname and parts.path.strip("/") and parts.port != 0)
    except ValueError:
        good = False
    else:
        good = good and not (parts.query or parts.fragment or "@" in parts.netloc)
    if not good:
        section.error(
            section.at("authority"), "is not an https address that ends in a tenant", "write https://HOST:PORT/TENANT"
        )
    return text


def _read_redirect_uri(section: Section) -> str:
    text = section.text("redirect_uri", "http://localhost")
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        good = parts.port != 0 and not parts.fragment and len(text) <= MAX_REDIRECT_CHARACTERS
    except ValueError:
        host, good = "", False
    local = host in ("localhost", "127.0.0.1")
    if not (good and host and (parts.scheme == "https" or (parts.scheme == "http" and local))):
        section.error(
            section.at("redirect_uri"),
            f"{quoted(text)} is no redirect address that Entra takes",
            "write http://localhost, or the https address that is registered",
        )
    return text


def _read_secret_end(section: Section) -> datetime.date | None:
    """The day on which the client secret ends; which the portal says, and nobody can ask for."""
    text = section.text("client_secret_expires")
    if not text:
        return None
    if not section.has("client_secret"):
        section.warning(section.at("client_secret_expires"), "there is no client_secret that could end", "remove it")
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    remedy = "write the day under Expires in the portal, as year-month-day: 2027-05-01"
    section.error(section.at("client_secret_expires"), f"{quoted(text)} is not a day", remedy)
    return None


def _check_flow(section: Section, flow: Flow, audience: str) -> None:
    if flow is not Flow.APP_ONLY:
        return
    if audience in _AUDIENCES:
        key = "authority" if section.has("authority") else "account_types"
        section.error(section.at(key), f"app_only needs one organisation, not {quoted(audience)}", _ASK_FOR_TENANT)
    if not section.has("client_secret") and not section.has("certificate"):
        section.error(section.at("flow"), "app_only needs a client_secret or a certificate", "add one of the two")


def _check_secret(section: Section, app: App) -> None:
    if section.has("client_secret") and section.has("certificate"):
        section.error(section.at("certificate"), "stands beside a client_secret", "keep one of the two")
    if app.client_secret and _GUID.fullmatch(app.client_secret.value):
        section.error(
            section.at("client_secret"),
            "this is the Secret ID",
            "use the secret's Value, which the portal shows once; make a new secret if it is lost",
        )
