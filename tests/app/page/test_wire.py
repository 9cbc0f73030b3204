"""What is read of a request, and what is not: wire.py."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.page.wire import (
    MAX_BODY_OCTETS,
    MAX_FIELD_CHARACTERS,
    MAX_FIELDS,
    MAX_TARGET_OCTETS,
    Asked,
    Received,
    Route,
    Unreadable,
    headers_for,
    path_to,
    read_fields,
    read_form,
    read_target,
)

FORM = {"content-type": ["application/x-www-form-urlencoded; charset=utf-8"]}


async def nothing(asked: Asked) -> None:
    raise AssertionError


def test_a_path_and_its_query() -> None:
    assert read_target(b"/accounts/a%2Fb%40c/x?y=1&z=%C3%A4&y=2") == (["accounts", "a/b@c", "x"], {"y": "1", "z": "ä"})
    assert read_target(b"/") == ([""], {})


@pytest.mark.parametrize(
    "target",
    [
        *(b"", b"*", b"http://evil.example/", b"//evil.example/", b"/..", b"/static/../x", b"/%2e%2E/x", b"/./x"),
        *(b"/a%00b", b"/a%0d%0aSet-Cookie:x", b"/%ff", b"/" + b"a" * MAX_TARGET_OCTETS),
    ],
)
def test_no_path_of_ours(target: bytes) -> None:
    with pytest.raises(Unreadable):
        read_target(target)


def test_a_form() -> None:
    assert read_form(Received("POST", b"/", FORM, b"a=1&b=&a=+2%0A")) == (("a", "1"), ("b", ""), ("a", " 2\n"))
    assert read_form(Received("POST", b"/", {})) == ()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"a=" + b"x" * MAX_BODY_OCTETS, FORM, 413),
        (b"a=" + b"x" * MAX_FIELD_CHARACTERS, FORM, 400),
        (b"a=1&" * (MAX_FIELDS + 1), FORM, 400),
        (b"a=%00", FORM, 400),
        (b"a=%ff", FORM, 400),
        (b"a=\xff", FORM, 400),
        (b"%1b=1", FORM, 400),
        (b'{"a": 1}', {"content-type": ["application/json"]}, 415),
        (b"a=1", {"content-type": ["text/plain"]}, 415),
        (b"a=1", {}, 415),
    ],
)
def test_no_form_of_ours(body: bytes, headers: dict[str, list[str]], status: int) -> None:
    with pytest.raises(Unreadable) as caught:
        read_form(Received("POST", b"/", headers, body))
    assert caught.value.status == status


@given(st.binary(max_size=300), st.sampled_from([b"", b"/", b"/accounts/"]))
def test_any_octets_are_read_or_refused(octets: bytes, start: bytes) -> None:
    for read in (read_target, read_fields):
        with contextlib.suppress(Unreadable):
            read(start + octets)


def test_fields_as_a_handler_sees_them() -> None:
    fields = read_fields(b"a=+1+&b=2&a=3")
    asked = Asked({}, {}, None, "", fields)  # type: ignore[arg-type]
    assert asked.form == {"a": "1", "b": "2"}
    assert asked.chosen("a") == [" 1 ", "3"]
    asked.keep("x", 1)
    assert asked.take("x") is None, "without a session nothing is kept"


def test_a_route() -> None:
    route = Route("GET", "/accounts/{login}/passwords/{name}", nothing)  # type: ignore[arg-type]
    assert route.match(["accounts", "a/b", "passwords", "x"]) == {"login": "a/b", "name": "x"}
    assert route.match(["accounts", "", "passwords", "x"]) is None
    assert route.match(["accounts", "a", "passwords"]) is None
    assert route.match(["accounts", "a", "other", "x"]) is None


def test_a_path_is_made_of_any_text() -> None:
    assert path_to("/accounts/{login}/x", login="a/b@c ?#%\r\n{}") == "/accounts/a%2Fb%40c%20%3F%23%25%0D%0A%7B%7D/x"


def test_the_headers_that_keep_a_browser_strict() -> None:
    headers = dict(headers_for("text/html"))
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert dict(headers_for("text/html", leaks=True))["Referrer-Policy"] == "no-referrer"


def test_nothing_of_a_request_is_printed() -> None:
    received = Received("POST", b"/open/token", {"cookie": ["secret"]}, b"code=secret")
    asked = Asked({}, {"code": "secret"}, None, "", (("client_secret", "secret"),))  # type: ignore[arg-type]
    assert "secret" not in repr(received) + repr(asked)
    assert "token" not in repr(received)
