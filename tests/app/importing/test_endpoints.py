"""`endpoints.py`: which cloud and tenant an address means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.importing.endpoints import Authority, is_guid, provider, read_endpoint
from proxy.config.settings import Cloud
from tests.app.importing.samples import CLIENT_ID, TENANT


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://login.microsoftonline.com/common/oauth2/v2.0/token", Authority("common")),
        (f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/authorize", Authority(TENANT)),
        ("https://login.microsoftonline.com/contoso.com/oauth2/token", Authority("contoso.com")),
        ("https://login.windows.net/consumers/oauth2/v2.0/devicecode", Authority("consumers")),
        ("https://login.live.com/oauth20_token.srf", Authority("consumers")),
        (f"https://login.microsoftonline.us/{TENANT}/oauth2/v2.0/token", Authority(TENANT, Cloud.GCC_HIGH)),
        (f"https://login.partner.microsoftonline.cn/{TENANT}/oauth2/token", Authority(TENANT, Cloud.CHINA)),
        (
            "https://login.example.net:8443/practice/oauth2/v2.0/token",
            Authority("organizations", own="https://login.example.net:8443/practice"),
        ),
    ],
)
def test_microsoft(address: str, expected: Authority) -> None:
    assert read_endpoint(address) == expected


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://oauth2.googleapis.com/token", "Google"),
        ("https://api.login.yahoo.com/oauth2/get_token", "Yahoo"),
        ("https://login.microsoftonline.com/*** your tenant id here ***/oauth2/v2.0/token", "placeholder"),
        ("https://login.microsoftonline.com/tenant/oauth2/v2.0/token", "placeholder"),
        ("http://login.microsoftonline.com/common/oauth2/v2.0/token", "https"),
        ("https://user@login.microsoftonline.com/common/oauth2/v2.0/token", "https"),
        ("https://login.microsoftonline.com/common", "token addresses"),
        ("https://[", "no address"),
        ("", "https"),
    ],
)
def test_others(address: str, reason: str) -> None:
    why = read_endpoint(address)
    assert isinstance(why, str)
    assert reason in why


@given(st.text() | st.text(alphabet="https:/[]@login.microsoftonline.com oauth2v2.0token", max_size=60))
def test_any_text_is_judged(address: str) -> None:
    assert read_endpoint(address)


def test_names() -> None:
    assert provider("imap.gmail.com") == "Google"
    assert provider("notgmail.com") == provider("outlook.office365.com") == ""
    assert is_guid(CLIENT_ID)
    assert not is_guid("alice")
