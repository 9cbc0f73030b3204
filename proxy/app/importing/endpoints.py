"""A sign-in service's address, as other programs keep it -> the cloud and the tenant that it means.

Called by the readers beside it. What it is not: a check that the tenant exists; the sign-in service knows that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.config.clouds import SIGN_IN_HOSTS
from proxy.config.fields import HOST
from proxy.config.settings import Cloud

_HOSTS = {
    **{host: cloud for cloud, host in SIGN_IN_HOSTS.items() if cloud is not Cloud.DOD},
    "login.microsoft.com": Cloud.GLOBAL,
    "login.windows.net": Cloud.GLOBAL,
    "login.chinacloudapi.cn": Cloud.CHINA,
}
"""The second name of each is an older one (FACTS 1.2)."""
_LIVE = "login.live.com"
_PATH = re.compile(r"/(?P<tenant>[^/]+)/oauth2(?:/v2\.0)?/(?:token|authorize|devicecode)/?")
_AUDIENCES = ("consumers", "organizations", "common")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OTHERS = {
    "google.com": "Google",
    "googleapis.com": "Google",
    "gmail.com": "Google",
    "yahoo.com": "Yahoo",
    "aol.com": "AOL",
    "fastmail.com": "Fastmail",
    "zoho.com": "Zoho",
    "yandex.com": "Yandex",
    "yandex.ru": "Yandex",
    "mail.ru": "Mail.ru",
}


@dataclass(frozen=True, slots=True)
class Authority:
    """Where people of an app sign in."""

    account_types: str
    cloud: Cloud = Cloud.GLOBAL
    own: str = ""
    """The whole address, of a private sign-in service."""


def read_endpoint(address: str) -> Authority | str:
    """The authority; or, where Microsoft's is not meant, why it cannot be used."""
    try:
        parts = urlsplit(address.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "is no address"
    if other := provider(host):
        return f"{other} is another provider, and mailferry serves Microsoft 365 and Outlook.com alone"
    if parts.scheme != "https" or not host or "@" in parts.netloc:
        return "is no https address"
    if host == _LIVE:
        return Authority("consumers")
    found = _PATH.fullmatch(parts.path)
    if found is None:
        return "is not one of Microsoft's token addresses"
    tenant = found["tenant"]
    known = tenant in _AUDIENCES or _GUID.fullmatch(tenant) or "." in tenant
    if not HOST.fullmatch(tenant) or (host in _HOSTS and not known):
        return "names no tenant: a sample's placeholder, perhaps"
    if host in _HOSTS and port in (None, 443):
        return Authority(tenant, _HOSTS[host])
    return Authority("organizations", Cloud.GLOBAL, f"https://{parts.netloc}/{tenant}")


def provider(host: str) -> str:
    """The name of another provider that this host belongs to; empty when none is known."""
    name = host.casefold()
    return next((who for end, who in _OTHERS.items() if name == end or name.endswith(f".{end}")), "")


def is_guid(text: str) -> bool:
    return bool(_GUID.fullmatch(text))
