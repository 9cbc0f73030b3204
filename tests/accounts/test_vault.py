"""The vault: what is sealed opens under its own name and key, nothing else does; a key is private and never lost."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from proxy.accounts.vault import KEY_OCTETS, Damaged, KeyUnusable, Vault, WrongKey, read_key
from proxy.config.settings import KeySource

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


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> KeySource:
    file = folder / "key"
    file.write_bytes(content)
    file.chmod(mode)
    return KeySource(file, created=False)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_is_read(tmp_path: Path, mode: int) -> None:
    assert read_key(key_file(tmp_path, base64.b64encode(KEY) + b"\n", mode)) == KEY


def test_the_first_start_makes_a_key_and_the_next_reads_it(tmp_path: Path) -> None:
    source = KeySource(tmp_path / "new" / "folder" / "key", created=True)
    key = read_key(source)
    assert len(key) == KEY_OCTETS
    assert read_key(source) == key
    assert stat.S_IMODE(source.file.stat().st_mode) == 0o600
    assert os.listdir(source.file.parent) == ["key"]


def test_two_keys_are_not_the_same(tmp_path: Path) -> None:
    assert read_key(KeySource(tmp_path / "a", created=True)) != read_key(KeySource(tmp_path / "b", created=True))


def test_a_key_that_somebody_else_made_meanwhile_is_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    link = os.link

    def link_after_another(source: Path, target: Path) -> None:
        key_file(tmp_path, base64.b64encode(KEY))
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_another)
    assert read_key(KeySource(file, created=True)) == KEY
    assert os.listdir(tmp_path) == ["key"]


def test_a_key_that_was_not_wholly_written_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(KeyUnusable, match="cannot be made: No space left on device"):
        read_key(KeySource(tmp_path / "key", created=True))
    assert os.listdir(tmp_path) == []


def refusal(source: KeySource) -> str:
    with pytest.raises(KeyUnusable) as refused:
        read_key(source)
    return refused.value.text


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"!" * 44, base64.b64encode(b"short"), base64.b64encode(KEY + b"x")]
)
def test_a_file_that_holds_no_key_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    source = KeySource(key_file(tmp_path, content).file, created=True)
    text = refusal(source)
    assert "does not hold a key" in text
    assert not content or content.decode() not in text
    assert source.file.read_bytes() == content


def owned_by(uid: int, gid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """We are user 1000, and every file belongs to this user and group, whoever runs the test."""
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        facts = list(fstat(descriptor))
        facts[stat.ST_UID], facts[stat.ST_GID] = uid, gid
        return os.stat_result(facts)

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_may_read_is_refused_with_the_remedy(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = key_file(tmp_path, base64.b64encode(KEY), mode)
    owned_by(1000, 1000, monkeypatch)
    assert refusal(source).endswith(f"(mode {mode:04o}). Run: chmod 600 {source.file}")


def test_another_users_key_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = key_file(tmp_path, base64.b64encode(KEY))
    owned_by(1234, 1234, monkeypatch)
    assert refusal(source) == f"The key file {source.file} belongs to another user. Run: chown 1000 {source.file}"


def test_a_systemd_credential_is_roots_file_with_an_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = key_file(tmp_path, base64.b64encode(KEY), 0o440)
    owned_by(0, 0, monkeypatch)
    assert read_key(source) == KEY


@pytest.mark.parametrize(("mode", "group"), [(0o444, 0), (0o460, 0), (0o440, 1000)])
def test_roots_file_is_refused_when_more_than_root_and_we_may_read_it(
    tmp_path: Path, mode: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = key_file(tmp_path, base64.b64encode(KEY), mode)
    owned_by(0, group, monkeypatch)
    assert "open to other users" in refusal(source)


def test_an_absent_key_that_may_not_be_made_is_told(tmp_path: Path) -> None:
    assert refusal(KeySource(tmp_path / "key", created=False)).startswith(
        f"There is no key file at {tmp_path / 'key'}."
    )


def test_a_pipe_in_the_keys_place_does_not_hold_up_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    assert "not a regular file" in refusal(KeySource(tmp_path / "key", created=False))


def test_a_key_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be read: Not a directory" in refusal(KeySource(tmp_path / "file" / "key", created=False))
