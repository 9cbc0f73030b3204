"""Where the key lies: private, never lost; and whenever its change is cut off, there is one that opens everything."""

from __future__ import annotations

import base64
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked, PasswordDeleteError

from proxy.accounts.keys import KEYRING_SERVICE, FileKey, KeyringKey, KeyUnusable, key_place
from proxy.accounts.vault import KEY_OCTETS
from proxy.config.settings import KeySource

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


# --- a file


def read_key(source: KeySource) -> bytes:
    """As a first start reads it."""
    return key_place(source).read(make=True)


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


def test_no_key_is_made_beside_a_store(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="There is no key file"):
        FileKey(tmp_path / "key", created=True).read(make=False)
    assert os.listdir(tmp_path) == []


# --- a successor


@pytest.fixture
def place(tmp_path: Path) -> FileKey:
    return FileKey(key_file(tmp_path, text_of(KEY).encode()).file, created=False)


def test_there_is_no_successor_before_it_is_made(place: FileKey) -> None:
    assert place.read_next() is None


def test_a_successor_lies_beside_the_key_until_it_takes_its_place(place: FileKey, tmp_path: Path) -> None:
    new = place.draft()
    assert new != KEY
    assert place.read(make=False) == KEY
    assert place.read_next() == new
    assert place.draft() == new, "the one that was made is used"
    assert stat.S_IMODE((tmp_path / "key.next").stat().st_mode) == 0o600
    place.promote()
    assert place.read(make=False) == new
    assert place.read_next() is None
    assert os.listdir(tmp_path) == ["key"]


def test_a_successor_is_on_the_disk_before_it_is_used(
    place: FileKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, link, rename = os.fsync, os.link, os.rename

    def note_sync(descriptor: int) -> None:
        done.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def note_link(source: Path, target: Path) -> None:
        done.append("name")
        link(source, target)

    def note_rename(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(os, "rename", note_rename)
    place.draft()
    assert done == ["sync file", "name", "sync folder"]
    place.promote()
    assert done[3:] == ["rename", "sync folder"]


def test_a_successor_takes_the_place_of_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    real = key_file(tmp_path / "secrets", text_of(KEY).encode()).file
    link = tmp_path / "link"
    link.symlink_to(real)
    place = FileKey(link, created=False)
    new = place.draft()
    place.promote()
    assert link.is_symlink()
    assert FileKey(real, created=False).read(make=False) == new


def test_a_successor_that_a_person_made_is_used(place: FileKey, tmp_path: Path) -> None:
    (tmp_path / "key.next").write_text(text_of(OTHER_KEY))
    (tmp_path / "key.next").chmod(0o600)
    assert place.draft() == OTHER_KEY


def test_a_successor_that_is_no_key_is_told_and_not_written_over(place: FileKey, tmp_path: Path) -> None:
    (tmp_path / "key.next").write_text("my notes")
    (tmp_path / "key.next").chmod(0o600)
    with pytest.raises(KeyUnusable, match=r"key\.next does not hold a key"):
        place.draft()
    assert (tmp_path / "key.next").read_text() == "my notes"


def refused(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a name in the folder is refused, root too."""

    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", refuse)


def test_where_mailferry_may_not_write_a_person_is_told_how_to_do_it(
    place: FileKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(30, monkeypatch)  # a systemd credential's folder is read-only
    with pytest.raises(KeyUnusable) as told:
        place.draft()
    assert f"openssl rand -base64 32 > {tmp_path / 'key.next'}" in told.value.text
    assert "LoadCredential=key.next:PATH" in told.value.text
    assert os.listdir(tmp_path) == ["key"]
    (tmp_path / "key.next").write_text(text_of(OTHER_KEY))
    (tmp_path / "key.next").chmod(0o600)
    assert place.draft() == OTHER_KEY
    with pytest.raises(KeyUnusable, match="Now put the new key in the old one's place"):
        place.promote()
    assert place.read(make=False) == KEY


def test_a_full_disk_is_told_as_what_it_is(place: FileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    place.draft()
    refused(28, monkeypatch)
    with pytest.raises(KeyUnusable, match=r"No space left on device\. The next start of mailferry tries again"):
        place.promote()
    place._next.unlink()
    with pytest.raises(KeyUnusable, match=r"key\.next cannot be made: No space left on device"):
        place.draft()


# --- a keyring


class Desktop(KeyringBackend):
    """A keyring in memory, which may be locked, forget, or break."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring's own has no types
        self.kept: dict[tuple[str, str], str] = {}
        self.trouble: Exception | None = None
        self.forgets = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.trouble:
            raise self.trouble
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.trouble:
            raise self.trouble
        if not self.forgets:
            self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise PasswordDeleteError
        del self.kept[service, username]


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    before = keyring.get_keyring()
    backend = Desktop()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


NAME = "/var/lib/mailferry/mailferry.key"
IN_KEYRING = KeySource(Path(NAME), created=True, keyring=True)


def test_the_first_start_makes_a_key_in_the_keyring_and_the_next_reads_it(desktop: Desktop) -> None:
    key = read_key(IN_KEYRING)
    assert len(key) == KEY_OCTETS
    assert key_place(IN_KEYRING).read(make=False) == key
    assert desktop.kept == {(KEYRING_SERVICE, NAME): text_of(key)}


def test_a_successor_in_the_keyring(desktop: Desktop) -> None:
    place = KeyringKey(NAME)
    key = place.read(make=True)
    assert place.read_next() is None
    new = place.draft()
    assert place.draft() == place.read_next() == new != key == place.read(make=False)
    place.promote()
    assert desktop.kept == {(KEYRING_SERVICE, NAME): text_of(new)}
    place.promote()  # cut off before it was told so, and done again
    assert place.read(make=False) == new


def test_no_key_is_made_in_another_keyring_when_there_is_a_store(desktop: Desktop) -> None:
    with pytest.raises(KeyUnusable, match="The keyring holds no key"):
        key_place(IN_KEYRING).read(make=False)
    assert desktop.kept == {}


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (KeyringLocked("dbus: secret details"), "The keyring is locked. Unlock it"),
        (RuntimeError("dbus: secret details"), r"The keyring failed \(RuntimeError\)"),
    ],
)
def test_a_keyring_that_does_not_open_is_told(desktop: Desktop, trouble: Exception, told: str) -> None:
    desktop.trouble = trouble
    with pytest.raises(KeyUnusable, match=told) as refused:
        read_key(IN_KEYRING)
    assert "secret details" not in refused.value.text


def test_a_session_without_keyring_is_told(desktop: Desktop) -> None:
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    with pytest.raises(KeyUnusable, match="This session has no keyring"):
        read_key(IN_KEYRING)


def test_a_keyring_that_forgets_is_told_before_anything_is_sealed(desktop: Desktop) -> None:
    desktop.forgets = True
    with pytest.raises(KeyUnusable, match="does not keep"):
        read_key(IN_KEYRING)


def test_what_somebody_else_put_there_is_told_and_left(desktop: Desktop) -> None:
    desktop.kept[KEYRING_SERVICE, NAME] = "my password"
    with pytest.raises(KeyUnusable, match="does not hold a key") as refused:
        read_key(IN_KEYRING)
    assert "my password" not in refused.value.text
    assert desktop.kept == {(KEYRING_SERVICE, NAME): "my password"}


def test_without_the_library_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.delitem(sys.modules, "keyring.errors", raising=False)
    with pytest.raises(KeyUnusable, match=r"pip install 'mailferry\[keyring\]'"):
        read_key(IN_KEYRING)
