"""What is asked for at Microsoft: the permissions of an app, and the address where an administrator grants them.

What it is not: a request; `microsoft.py` makes those, `tokens.py` and `sign_in.py` only show the address.
"""

from __future__ import annotations

from urllib.parse import urlencode

from proxy.config.settings import App, Cloud, Flow

_RESOURCES = {  # FACTS 1.1
    Cloud.GLOBAL: "https://outlook.office.com",
    Cloud.GCC_HIGH: "https://outlook.office365.us",
    Cloud.DOD: "https://outlook.office365.us",
    Cloud.CHINA: "https://partner.outlook.cn",
}
_PERMISSIONS = ("IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send")  # FACTS 1.4: all at once


def scopes(app: App) -> list[str]:
    """As msal takes them: without `offline_access`, which it adds itself (FACTS 1.4)."""
    if app.flow is Flow.APP_ONLY:
        own = "https://outlook.office365.com" if app.cloud is Cloud.GLOBAL else _RESOURCES[app.cloud]  # FACTS 1.6
        return [f"{own}/.default"]
    return [f"{_RESOURCES[app.cloud]}/{permission}" for permission in _PERMISSIONS]


def consent_address(app: App) -> str:
    """Where an administrator grants consent for the whole organisation (FACTS 1.5)."""
    query = {"client_id": app.application_id, "redirect_uri": app.redirect_uri, "scope": " ".join(scopes(app))}
    return f"{app.authority}/v2.0/adminconsent?{urlencode(query)}"
