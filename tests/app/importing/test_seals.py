"""`seals.py`: what those programs sealed is opened with the right password alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.app.importing.found import Sealed
from proxy.app.importing.seals import MAX_ITERATIONS, open_sealed
from tests.app.importing.samples import ITERATIONS, PASSWORD, SALT, TOKEN, seal, seal_aes

DAVMAIL_SALT = b"davmailgateway!&"


def fernet(text: str, *iterations: int) -> Sealed:
    return Sealed("fernet", text, SALT, iterations or (ITERATIONS,))


def aes(text: str, salt: bytes = DAVMAIL_SALT) -> Sealed:
    return Sealed("aes", text.removeprefix("{AES}"), salt, (10_000,))


def test_the_right_password_opens() -> None:
    assert open_sealed(fernet(seal(TOKEN)), PASSWORD) == TOKEN
    assert open_sealed(aes(seal_aes(TOKEN)), PASSWORD) == TOKEN
    assert open_sealed(Sealed("clear", TOKEN), "") == TOKEN


def test_another_password_does_not() -> None:
    assert open_sealed(fernet(seal(TOKEN)), "wrong") is None
    assert [open_sealed(aes(seal_aes(TOKEN)), f"wrong {number}") for number in range(40)] == [None] * 40


def test_each_number_of_iterations_is_tried() -> None:
    assert open_sealed(fernet(seal(TOKEN, iterations=500), 2_000, 500), PASSWORD) == TOKEN


def test_the_number_of_its_own_version_opens() -> None:
    assert open_sealed(fernet(seal(TOKEN, iterations=1_200_000), 1_200_000), PASSWORD) == TOKEN


def test_a_hostile_number_is_not_worked_off() -> None:
    assert open_sealed(fernet(seal(TOKEN), MAX_ITERATIONS + 1, 0, -1), PASSWORD) is None


@pytest.mark.parametrize("salt", [b"", b"short", b"seventeen octets!"])
def test_a_salt_of_another_size_opens_nothing(salt: bytes) -> None:
    assert open_sealed(aes(seal_aes(TOKEN), salt), PASSWORD) is None


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["fernet", "aes"]), st.text(max_size=60), st.binary(max_size=20), st.text(max_size=10))
def test_any_text_is_refused_in_peace(form: str, text: str, salt: bytes, password: str) -> None:
    sealed = Sealed("fernet" if form == "fernet" else "aes", text, salt, (10,))
    assert open_sealed(sealed, password) is None


def test_nothing_sealed_is_printed() -> None:
    assert TOKEN not in repr(Sealed("clear", TOKEN))
