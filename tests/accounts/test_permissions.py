"""What is asked for, cloud by cloud, and where an administrator consents to it."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from proxy.accounts.permissions import consent_address, scopes
from proxy.config.settings import App, Cloud
from tests.accounts.fakes import APP, DAEMON


@pytest.mark.parametrize(
    ("cloud", "own"),
    [
        (Cloud.GLOBAL, "https://outlook.office365.com/.default"),
        (Cloud.GCC_HIGH, "https://outlook.office365.us/.default"),
        (Cloud.DOD, "https://outlook.office365.us/.default"),
        (Cloud.CHINA, "https://partner.outlook.cn/.default"),
    ],
)
def test_an_app_of_its_own_right_asks_for_all_that_it_was_given(cloud: Cloud, own: str) -> None:
    assert scopes(replace(DAEMON, cloud=cloud)) == [own]


@pytest.mark.parametrize("app", [APP, DAEMON])
def test_the_administrators_address_asks_for_what_the_app_uses(app: App) -> None:
    address = urlsplit(consent_address(app))
    assert f"{address.scheme}://{address.netloc}{address.path}" == f"{app.authority}/v2.0/adminconsent"
    assert parse_qs(address.query) == {
        "client_id": [app.application_id],
        "redirect_uri": [app.redirect_uri],
        "scope": [" ".join(scopes(app))],
    }
