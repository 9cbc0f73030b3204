"""Reading XOAUTH2 (FACTS 2.1)."""

from __future__ import annotations

import base64

import pytest

from proxy.demo.conversation import xoauth2


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_user_and_token() -> None:
    assert xoauth2(encoded("user=alice@contoso.com\x01auth=Bearer a.b.c\x01\x01")) == ("alice@contoso.com", "a.b.c")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"=",
        b"dXNlcj1h IQ==",
        base64.b64encode(b"\xff"),
        encoded("user=a\x01auth=Bearer t\x01"),
        encoded("user=\x01auth=Bearer t\x01\x01"),
        encoded("user=a\x01auth=Bearer \x01\x01"),
        encoded("user=a\x01auth=Basic t\x01\x01"),
        encoded("user=a\x01auth=Bearer t\x01\x01more"),
    ],
)
def test_anything_else_is_none(response: bytes) -> None:
    assert xoauth2(response) == ("", "")
