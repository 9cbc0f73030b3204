"""Local passwords: hashes as passlib writes them, and passwords that any mail program can store."""

from __future__ import annotations

import re

import pytest

from proxy.accounts.passwords import generate_password, hash_password, verify_hash


def test_a_hash_is_of_its_password_and_of_no_other() -> None:
    phc = hash_password("correct horse")
    assert verify_hash(b"correct horse", phc)
    assert not verify_hash(b"correct horsf", phc)


def test_a_hash_has_passlibs_form_and_a_salt_of_its_own() -> None:
    first, second = hash_password("x"), hash_password("x")
    assert re.fullmatch(r"\$scrypt\$ln=14,r=8,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", first)
    assert first != second


def test_a_hash_that_passlib_made_is_understood() -> None:
    """The example of passlib's own documentation; its password is `password`."""
    phc = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E"
    assert verify_hash(b"password", phc)


@pytest.mark.parametrize(
    "phc",
    [
        "",
        "hunter2",
        "$scrypt$ln=14,r=8,p=1$c2FsdA$",
        "$scrypt$ln=14,r=8,p=1$c2FsdA==$aGFzaA==",
        "$scrypt$ln=14,r=8,p=1$c2FsdA$aGFzaAAAA",
        "$scrypt$ln=0,r=8,p=1$c2FsdA$aGFzaA",
        "$scrypt$ln=14,r=0,p=1$c2FsdA$aGFzaA",
        "$scrypt$ln=14,r=8,p=0$c2FsdA$aGFzaA",
        "$scrypt$ln=14,r=8,p=17$c2FsdA$aGFzaA",
        "$scrypt$ln=19,r=8,p=1$c2FsdA$aGFzaA",
        "$scrypt$ln=99,r=999,p=1$c2FsdA$aGFzaA",
        "$scrypt$ln=16,r=1,p=1$c2FsdA$aGFzaA",
        "$scrypt$ln=14,r=8,p=1$c2FsdA$aGFzaA\n",
    ],
)
def test_what_is_no_hash_or_a_hostile_one_is_refused_unseen(phc: str) -> None:
    with pytest.raises(ValueError, match="a scrypt hash") as refusal:
        verify_hash(b"password", phc)
    assert not phc or phc not in str(refusal.value)


def test_a_generated_password_can_be_stored_and_typed_anywhere() -> None:
    passwords = [generate_password() for _ in range(200)]
    assert len(set(passwords)) == 200
    assert all(re.fullmatch(r"[A-Za-z2-9]{24}", password) for password in passwords)
    assert not set("".join(passwords)) & set("IlOo")
