"""The vault: what is sealed opens under its own name and key, and nothing else does."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from proxy.accounts.vault import Damaged, Vault, WrongKey

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.binary(max_size=200))
def test_what_is_sealed_opens(record: str, plain: bytes) -> None:
    assert Vault(KEY).open(record, Vault(KEY).seal(record, plain)) == plain


def test_the_form_is_the_documented_one() -> None:
    sealed = Vault(KEY).seal("work/alice@contoso.com", b"token")
    version, key_id, nonce, text = sealed[:1], sealed[1:9], sealed[9:21], sealed[21:]
    assert version == b"\x01"
    assert AESGCM(KEY).decrypt(nonce, text, b"work/alice@contoso.com") == b"token"
    assert key_id == Vault(KEY).seal("another", b"")[1:9]
    assert key_id != Vault(OTHER_KEY).seal("another", b"")[1:9]


def test_the_same_text_is_never_sealed_the_same() -> None:
    assert Vault(KEY).seal("a", b"token") != Vault(KEY).seal("a", b"token")


def test_another_key_is_told_apart_from_damage() -> None:
    with pytest.raises(WrongKey):
        Vault(OTHER_KEY).open("a", Vault(KEY).seal("a", b"token"))


def test_a_swapped_row_does_not_open() -> None:
    with pytest.raises(Damaged):
        Vault(KEY).open("bob", Vault(KEY).seal("alice", b"token"))


@pytest.mark.parametrize("place", [0, 9, 21, -1])
def test_an_altered_octet_is_damage(place: int) -> None:
    sealed = bytearray(Vault(KEY).seal("a", b"token"))
    sealed[place] ^= 1
    with pytest.raises(Damaged):
        Vault(KEY).open("a", bytes(sealed))


def test_no_shortened_record_opens() -> None:
    sealed = Vault(KEY).seal("a", b"token")
    for length in range(len(sealed)):
        with pytest.raises((Damaged, WrongKey)):
            Vault(KEY).open("a", sealed[:length])


def test_a_key_of_the_wrong_size_makes_no_vault() -> None:
    with pytest.raises(ValueError, match="key"):
        Vault(b"short")
