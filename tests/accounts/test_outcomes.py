"""Error answers, sorted (FACTS 4.5), and what is said of them."""

from __future__ import annotations

import pytest

from proxy.accounts.outcomes import (
    LOOP_WAIT_S,
    MAX_ERROR_TEXT_CHARACTERS,
    AdminMustAct,
    AppMisconfigured,
    NotGranted,
    SignInAgain,
    SignInError,
    TryLater,
    explain,
    sort_error,
)
from proxy.login import Fault, Refusal, Trace


@pytest.mark.parametrize(
    ("error", "codes", "kind"),
    [
        ("invalid_grant", [70008], SignInAgain),
        ("invalid_grant", [], SignInAgain),
        ("login_required", [50058], SignInAgain),
        ("invalid_grant", [50196], TryLater),  # not a revocation
        ("invalid_grant", [53003, 50076], AdminMustAct),
        ("invalid_client", [7000222], AppMisconfigured),
        ("invalid_client", [90033], TryLater),
        ("temporarily_unavailable", [53003], TryLater),
        ("unauthorized_client", [700016], AppMisconfigured),
        ("consent_required", [65001], SignInAgain),  # the person may consent, and is told who else
        ("access_denied", [90094], AdminMustAct),
        ("expired_token", [70019], SignInAgain),
        ("a new word of Microsoft's", [123456], TryLater),
    ],
)
def test_each_error_has_its_class(error: str, codes: list[int], kind: type[NotGranted]) -> None:
    assert isinstance(sort_error({"error": error, "error_codes": codes}), kind)


def test_a_loop_is_waited_out_longer_than_the_service_says() -> None:
    looping = sort_error({"error": "invalid_grant", "error_codes": [50196]}, retry_after_s=2)
    assert isinstance(looping, TryLater)
    assert looping.retry_after_s == LOOP_WAIT_S


def test_an_answer_of_any_shape_is_read() -> None:
    odd = sort_error({"error": 7, "error_codes": "none", "error_description": ["x"], "suberror": None})
    assert odd == TryLater(SignInError("", foreign=True))
    mixed = sort_error({"error": "invalid_grant", "error_codes": [70008, "x", None]})
    assert mixed.error.codes == (70008,)


def test_the_text_is_one_bounded_line_without_anything_like_a_secret() -> None:
    token = "0.AXoA" + "b" * 80
    text = f"AADSTS70000: bad\r\n token {token} \x1b[31m Trace ID: 1 Correlation ID: 2"
    error = sort_error({"error": "invalid_grant", "error_description": text}).error
    assert error.codes == (70000,)
    assert "b" * 10 not in error.text
    assert error.text == "AADSTS70000: bad token 0.... [31m"
    long = sort_error({"error": "invalid_grant", "error_description": "word " * 1000}).error
    assert len(long.text) == MAX_ERROR_TEXT_CHARACTERS


@pytest.mark.parametrize(
    "tail",
    [
        "Trace ID: 1 Correlation ID: {} Timestamp: {}",  # the token endpoint, and a redirect
        "Request Id: 1 Correlation Id: {} Timestamp: {}",  # the error page
    ],
)
def test_what_an_administrator_needs_is_found_in_the_text_too(tail: str) -> None:
    id, at = "0a1b2c3d-0000-4000-8000-000000000002", "2027-01-15 08:00:00Z"
    description = f"AADSTS50105: not assigned. {tail.format(id, at)}"
    error = sort_error({"error": "access_denied", "error_description": description}).error
    assert error.trace == Trace("AADSTS50105", id, at)
    assert error.text == "AADSTS50105: not assigned."
    assert str(error).endswith(f"(correlation id {id}, {at})")


def test_an_error_prints_what_an_administrator_needs() -> None:
    error = SignInError("invalid_grant", (70008,), "expired", "", "c-1", "2026-11-24 12:00:00Z")
    assert str(error) == "invalid_grant AADSTS70008 expired (correlation id c-1, 2026-11-24 12:00:00Z)"
    assert str(SignInError("network_error", text="gone")) == "network_error gone"


@pytest.mark.parametrize(
    ("refused", "refusal", "fault"),
    [
        (AppMisconfigured(SignInError("bad_authority", text="There is no directory.")), "misconfigured", "mailferry"),
        (SignInAgain(SignInError("answer_mismatch", text="Not this sign-in's.")), "sign_in_needed", "client"),
        (TryLater(SignInError("network_error", text="Gone.")), "try_later", "network"),
        (TryLater(SignInError("service_unavailable", text="HTTP 503.")), "try_later", "microsoft_sign_in"),
        (TryLater(SignInError("unreadable_answer", text="A page.")), "try_later", "network"),
    ],
)
def test_our_own_errors_speak_with_their_own_text(refused: NotGranted, refusal: str, fault: str) -> None:
    row = explain(refused)
    assert row.cause == refused.error.text
    assert (row.refusal, row.fault) == (Refusal(refusal), Fault(fault))


def test_microsofts_errors_speak_with_the_tables_text() -> None:
    assert "expired" in explain(SignInAgain(SignInError("invalid_grant", (700082,), "AADSTS700082: x"))).cause
    unknown = explain(TryLater(SignInError("odd", (424242,), "AADSTS424242: x")))
    assert "AADSTS424242" in unknown.cause
    assert unknown.refusal is Refusal.TRY_LATER
