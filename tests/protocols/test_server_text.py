from __future__ import annotations

import base64

from proxy.login import Bearer
from proxy.protocols import sasl
from proxy.protocols.server_text import challenge_text, holds_token, without_token

BEARER = Bearer("u@example.com", "t0ken" * 200)


def test_an_echoed_token_is_hidden_whole_or_cut() -> None:
    blob = sasl.xoauth2(BEARER).decode()
    for echo in (BEARER.token, blob, blob[:150], f"<{BEARER.token[7:]}>"):
        assert without_token(f"500 what is [{echo} here", BEARER) in ("500 what is (... here", "500 what is ... here")


def test_octets_with_the_token_are_known() -> None:
    assert holds_token(b"* OK " + BEARER.token.encode(), BEARER)
    assert holds_token(b"* OK " + sasl.xoauth2(BEARER) + b"\r\n", BEARER)
    assert not holds_token(b"* OK t0ken\r\n", BEARER)


def test_short_tokens_are_hidden_too() -> None:
    assert without_token("no 'abc'\r\n", Bearer("u", "abc")) == "no '...'"


def test_what_might_be_another_secret_is_hidden_and_what_cannot_be_is_shown() -> None:
    header = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"RS256","x5t":"1"}').decode()
    assert without_token(f"NO {header}.{'x' * 40}", BEARER) == "NO ......."
    shown = "NO 7d2f0c1e-3b64-4f5a-9c8e-51a0d3e6b742 AM0PR01CA0001.eurprd01.prod.exchangelabs.com"
    assert without_token(shown, BEARER) == shown


def test_challenge_is_decoded_where_it_can_be() -> None:
    assert challenge_text(base64.b64encode(b'{"status":"401"}')) == '{"status":"401"}'
    assert challenge_text(b"so \xff") == "so �"
