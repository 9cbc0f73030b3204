"""Reading a token: `claims.py`. No part of the token comes out."""

from __future__ import annotations

import json
import secrets

import pytest

from proxy.app.doctor.claims import read_claims
from proxy.demo.directory import base64url, unsigned_jwt


def test_what_exchange_looks_at() -> None:
    token = unsigned_jwt(
        {
            "aud": "https://outlook.office.com",
            "scp": "https://outlook.office.com/IMAP.AccessAsUser.All SMTP.Send",
            "upn": "alice@contoso.com",
            "tid": "t",
            "appid": "a",
            "exp": 1_800_000_000,
        }
    )
    assert read_claims(token) == {
        "kind": "jwt",
        "characters": len(token),
        "audience": "https://outlook.office.com",
        "scopes": ["IMAP.AccessAsUser.All", "SMTP.Send"],
        "roles": [],
        "user": "alice@contoso.com",
        "tenant": "t",
        "application_id": "a",
        "expires_at_s": 1_800_000_000,
    }


def test_a_personal_accounts_token_is_opaque() -> None:
    token = "EwB" + secrets.token_urlsafe(300)
    assert read_claims(token) == {"kind": "opaque", "characters": len(token)}


@pytest.mark.parametrize(
    "token", ["", "a.b", "a.b.c", "a.!!!.c", f"a.{base64url(b'[1]')}.c", f"a.{base64url(b'[' * 9999)}.c"]
)
def test_what_looks_like_a_token_and_is_none(token: str) -> None:
    assert read_claims(token)["kind"] == "opaque"


def test_odd_claims_are_taken_as_nothing() -> None:
    claims = read_claims(unsigned_jwt({"aud": 5, "scp": None, "exp": "soon", "upn": ["x"], "roles": ["A", 7]}))
    assert (claims["audience"], claims["scopes"], claims["expires_at_s"], claims["user"]) == ("", [], None, "")
    assert claims["roles"] == ["A"]


def test_no_part_of_the_token_comes_out() -> None:
    token = unsigned_jwt({"aud": "x", "upn": "\x1b[31m" + "y" * 999, "scp": "s " * 3000})
    said = json.dumps(read_claims(token))
    head, body, signature = token.split(".")
    pieces = [part[at : at + 16] for part in (head, body, signature) for at in range(0, len(part) - 16, 16)]
    assert [piece for piece in pieces if piece in said] == []
    assert "\\u001b" not in said
    assert len(said) < 2_000
