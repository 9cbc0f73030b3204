"""`davmail.py`: an app of one's own, ports, tokens in clear and sealed, and a word for each line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.importing.davmail import OWN_CLIENTS, read, recognises, refers_to
from proxy.app.importing.found import Found, FoundApp, FoundListener, Sealed, Text, Verdict
from proxy.app.importing.seals import open_sealed
from tests.app.importing.samples import (
    CLIENT_ID,
    PASSWORD,
    TENANT,
    TOKEN,
    judged,
    seal_aes,
    text,
    the_account,
    unjudged,
    verdicts,
)

FILE = Path("/etc/davmail.properties")
PORTS = (
    "davmail.imapPort=1143\ndavmail.popPort=\ndavmail.smtpPort=1025\ndavmail.caldavPort=1080\ndavmail.ldapPort=99999\n"
)
OWN = f"davmail.oauth.clientId={CLIENT_ID}\ndavmail.oauth.tenantId={TENANT}\n"
APP = FoundApp(CLIENT_ID, TENANT)


def sealed_line(**more: bytes) -> str:
    return f"davmail.oauth.alice@contoso.com.refreshToken={seal_aes(TOKEN, **more)}\n"  # type: ignore[arg-type]


def reading(*parts: str) -> Found:
    given = text("".join(parts), FILE)
    found = read([given])
    assert unjudged(found, given, ("#", "!")) == []
    return found


def test_ports_become_listeners() -> None:
    found = reading(PORTS)
    assert list(found.listeners) == [FoundListener("imap", "localhost", 1143), FoundListener("smtp", "localhost", 1025)]
    assert verdicts(found)["davmail.popPort"] is verdicts(found)["davmail.caldavPort"] is Verdict.NOT_TAKEN


def test_an_app_of_ones_own_and_a_sealed_token() -> None:
    found = reading(OWN, sealed_line())
    assert the_account(found).app == APP
    token = the_account(found).refresh_token
    assert token is not None
    assert token.form == "aes"
    assert open_sealed(token, PASSWORD) == TOKEN
    assert verdicts(found)["davmail.oauth.clientId"] is verdicts(found)["davmail.oauth.tenantId"] is Verdict.TAKEN
    assert token.text not in repr(found)


def test_a_fingerprint_of_ones_own_opens_too() -> None:
    found = reading(OWN, "davmail.oauth.fingerprint=0123456789abcdef\n", sealed_line(salt=b"0123456789abcdef"))
    token = the_account(found).refresh_token
    assert token is not None
    assert open_sealed(token, PASSWORD) == TOKEN


def test_a_token_in_clear() -> None:
    found = reading(OWN, f"davmail.oauth.alice@contoso.com.refreshToken={TOKEN}\n")
    assert the_account(found).refresh_token == Sealed("clear", TOKEN)


def test_tokens_in_a_file_of_their_own() -> None:
    main = text(OWN + "davmail.oauth.tokenFilePath=/var/lib/davmail/tokens\n", FILE)
    tokens = Text(
        Path("/var/lib/davmail/tokens"), f"#Oauth tokens\nalice@contoso.com={TOKEN}\nnobody=x\nbob@contoso.com=\n"
    )
    assert refers_to(main) == ["/var/lib/davmail/tokens"]
    found = read([main, tokens])
    assert the_account(found).login == "alice@contoso.com"
    assert unjudged(found, tokens, ("#", "!")) == []


@pytest.mark.parametrize("client_id", [*OWN_CLIENTS, ""])
def test_an_app_of_others_is_not_taken_but_the_account_waits_for_one(client_id: str) -> None:
    found = reading(f"davmail.oauth.clientId={client_id}\n", sealed_line())
    assert found.apps == ()
    assert (the_account(found).app, the_account(found).refresh_token) == (None, None)
    spot = judged(found, "davmail.oauth.alice@contoso.com.refreshToken")
    assert spot.verdict is Verdict.OTHERWISE
    assert "--app NAME" in spot.text


def test_a_cloud_of_china() -> None:
    found = reading(OWN, "davmail.loginUrl=https://login.chinacloudapi.cn\n", sealed_line())
    assert the_account(found).app == FoundApp(CLIENT_ID, TENANT, "china")


def test_an_american_government() -> None:
    assert the_account(reading(OWN, "davmail.tld=us\n", sealed_line())).app == FoundApp(CLIENT_ID, TENANT, "gcc_high")


def test_further_settings() -> None:
    told = verdicts(
        reading(
            "davmail.mode=O365EWS\ndavmail.allowRemote=true\ndavmail.bindAddress=\ndavmail.caldavPastDelay=90\n"
            "davmail.ssl.keystoreFile=davmail.p12\ndavmail.ssl.nosecureimap=false\ndavmail.showStartupBanner=true\n"
            "davmail.oauth.redirectUri=https://localhost/common/oauth2/nativeclient\nlog4j.rootLogger=WARN\n"
        )
    )
    assert told["davmail.mode"] is told["davmail.bindAddress"] is told["log4j.rootLogger"] is Verdict.OTHERWISE
    assert told["davmail.ssl.nosecureimap"] is told["davmail.oauth.redirectUri"] is Verdict.OTHERWISE
    assert told["davmail.allowRemote"] is told["davmail.caldavPastDelay"] is Verdict.NOT_TAKEN
    assert told["davmail.ssl.keystoreFile"] is told["davmail.showStartupBanner"] is Verdict.NOT_TAKEN


def test_an_exchange_of_ones_own() -> None:
    assert "Exchange Online" in judged(reading("davmail.mode=ExchangeEWS\n"), "davmail.mode").text


def test_what_is_recognised() -> None:
    assert recognises(text(PORTS))
    assert not any(recognises(text(content)) for content in ("", "[IMAP-1993]\n", "{}", "imapPort=1143"))


PIECES = (
    "davmail.imapPort",
    "davmail.oauth.",
    "clientId",
    "a@b.c.refreshToken",
    "tenantId",
    "=",
    "\n",
    "\\",
    CLIENT_ID,
    "{AES}",
    "#",
    "davmail.mode",
    "davmail.tld",
    "x",
    "1143",
)


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=40), max_size=3))
def test_any_files_are_read_and_every_line_is_judged(contents: list[str]) -> None:
    texts = [Text(Path(f"/{number}"), content) for number, content in enumerate(contents)]
    for each in texts:
        refers_to(each)
    found = read(texts)
    assert all(open_sealed(one, "x") is None or one.form == "clear" for each in found.accounts for one in each.sealed)
