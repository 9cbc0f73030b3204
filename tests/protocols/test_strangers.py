"""Who is known for a stranger, and that mail is not."""

from __future__ import annotations

import pytest

from proxy.protocols.strangers import stranger


@pytest.mark.parametrize("verb", [b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"CONNECT"])
def test_a_browser_is_known(verb: bytes) -> None:
    assert stranger(verb) == "http"


@pytest.mark.parametrize("verb", [b"PROXY", b"\0"])
def test_a_balancer_is_known(verb: bytes) -> None:
    assert stranger(verb) == "proxy_header"


@pytest.mark.parametrize("verb", [b"", b"EHLO", b"USER", b"GETX", b"HELP"])
def test_mail_is_no_stranger(verb: bytes) -> None:
    assert stranger(verb) is None
