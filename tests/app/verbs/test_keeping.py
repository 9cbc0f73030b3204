"""The verbs `key rotate`, `backup` and `restore`, beside a daemon's office and without one."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from proxy.accounts.backup import FIRST_LINE
from proxy.app.custody import SPOOL
from proxy.app.verbs import keeping
from proxy.demo.identity import IdentityProvider
from tests.app.home import ALICE, DESK, Beside, Home, Told, Turning
from tests.app.verbs.test_signing_in import person

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second and 128 MiB each would be the whole of these tests' time."""
    monkeypatch.setattr("proxy.accounts.backup.Head.__init__.__defaults__", (4, 8, 1))


@pytest.fixture
def signed_in(furnished: Home, identity: IdentityProvider) -> Home:
    furnished.run("sign-in", ALICE, "--paste", types=person(identity))
    return furnished


def typed(line: str = PASSPHRASE) -> Callable[[str], str]:
    return lambda said: f"{line}\n"


def backup(home: Home, *more: str, exit_code: int = 0, passphrase: str = PASSPHRASE) -> Told:
    return home.run("backup", str(home.folder / "b"), *more, types=typed(passphrase), exit_code=exit_code)


def restore(home: Home, *more: str, exit_code: int = 0, passphrase: str = PASSPHRASE, file: str = "b") -> Told:
    return home.run("restore", str(home.folder / file), *more, types=typed(passphrase), exit_code=exit_code)


def state(home: Home) -> str:
    rows = json.loads(home.run("account", "list", "--json").output)
    return str(next(row["state"] for row in rows if row["login"] == ALICE))


def files(home: Home) -> set[str]:
    return {each.name for each in home.state_dir.iterdir()}


# --- key rotate


def test_a_new_key_without_a_daemon(signed_in: Home) -> None:
    key = signed_in.state_dir / "mailferry.key"
    before = key.read_text()
    told = signed_in.run("key", "rotate")
    assert "1 sign-in sealed with a new key." in told.output
    assert "copy it again now" in told.output
    assert key.read_text() != before
    assert before.strip() not in told.output + told.errors
    assert state(signed_in) == "connecting"
    assert files(signed_in) == {"lock", "mailferry.key", "tokens.sqlite"}


def test_a_new_key_beside_a_daemon(signed_in: Home, turning_reactor: Turning) -> None:
    key = signed_in.state_dir / "mailferry.key"
    with closing(Beside(signed_in, turning_reactor)):
        before = key.read_text()
        signed_in.run("key", "rotate")
        assert key.read_text() != before
        assert state(signed_in) == "connecting"
    assert state(signed_in) == "connecting", "a next start opens it too"


def test_a_key_that_mailferry_may_not_replace(signed_in: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "link", read_only)
    told = signed_in.run("key", "rotate", exit_code=1)
    assert "mailferry: mailferry may not write beside the key" in told.errors
    assert "LoadCredential=mailferry.key.next:PATH" in told.errors
    monkeypatch.undo()
    new = signed_in.state_dir / "mailferry.key.next"
    new.write_text("A" * 43 + "=\n")
    new.chmod(0o600)
    monkeypatch.setattr(os, "rename", read_only)
    told = signed_in.run("key", "rotate")
    assert "1 sign-in sealed with a new key." in told.output
    assert "Now put the new key in the old one's place" in told.errors
    assert state(signed_in) == "connecting", "with both keys there it works on"
    monkeypatch.undo()
    new.replace(signed_in.state_dir / "mailferry.key")
    assert state(signed_in) == "connecting"


# --- backup


def test_a_backup_is_private_sealed_and_said(signed_in: Home) -> None:
    told = backup(signed_in)
    file = signed_in.folder / "b"
    assert told.output.startswith(f"1 sign-in sealed in {file}.")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith(f"{FIRST_LINE}\n")
    assert "alice" not in file.read_text()
    assert told.errors == ""


def test_a_backup_beside_a_daemon(signed_in: Home, turning_reactor: Turning) -> None:
    with closing(Beside(signed_in, turning_reactor)):
        assert "1 sign-in sealed" in backup(signed_in).output
    assert "0 sign-ins restored, 1 are there as they were." in restore(signed_in).output


def test_an_older_backup_is_replaced_and_nothing_else(signed_in: Home) -> None:
    backup(signed_in)
    first = (signed_in.folder / "b").read_text()
    backup(signed_in)
    assert (signed_in.folder / "b").read_text() != first
    (signed_in.folder / "b").write_text("my notes")
    told = backup(signed_in, exit_code=2)
    assert "is no backup of mailferry; it is not written over" in told.errors
    assert (signed_in.folder / "b").read_text() == "my notes"


def test_a_link_in_the_files_place_is_replaced_not_followed(signed_in: Home) -> None:
    backup(signed_in)
    real = (signed_in.folder / "b").rename(signed_in.folder / "real")
    before = real.read_text()
    (signed_in.folder / "b").symlink_to(real)
    backup(signed_in)
    assert real.read_text() == before
    assert not (signed_in.folder / "b").is_symlink()


@pytest.mark.parametrize("file", ["none/b", "."])
def test_where_no_file_can_be_is_told(signed_in: Home, file: str) -> None:
    told = signed_in.run("backup", str(signed_in.folder / file), types=typed(), exit_code=2)
    assert "There is no folder" in told.errors or "is not a regular file" in told.errors


def test_a_full_disk_leaves_the_older_backup(signed_in: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(signed_in)
    before = (signed_in.folder / "b").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_atomically", full)
    told = backup(signed_in, exit_code=1)
    assert told.errors == f"mailferry: {signed_in.folder / 'b'} cannot be written: no space left on device.\n"
    assert (signed_in.folder / "b").read_text() == before


def test_no_passphrase_is_no_backup(signed_in: Home) -> None:
    assert "Give the passphrase" in backup(signed_in, exit_code=2, passphrase="").errors
    assert not (signed_in.folder / "b").exists()


def test_a_short_passphrase_is_said_to_be_one(signed_in: Home) -> None:
    assert "less than 12 characters" in backup(signed_in, passphrase="0123456789a").errors


def test_at_a_terminal_it_is_asked_for_twice(signed_in: Home) -> None:
    answers = [PASSPHRASE, "correct horse battery stable"]
    with (
        mock.patch("tests.app.home.Typist.isatty", return_value=True, create=True),
        mock.patch("getpass.getpass", side_effect=answers),
    ):
        assert "The two are not the same" in backup(signed_in, exit_code=2).errors
    assert not (signed_in.folder / "b").exists()


# --- restore


def test_on_another_machine_with_another_key(signed_in: Home, tmp_path: Path) -> None:
    backup(signed_in, "--configuration")
    (tmp_path / "elsewhere").mkdir()
    other = Home(tmp_path / "elsewhere")
    told = restore(other, "--configuration", file="../b")
    assert "1 sign-in restored, 0 are there as they were." in told.output
    assert "4 files of conf.d written, 0 are there." in told.output
    assert told.errors == ""
    assert state(other) == "connecting"
    assert {each.name for each in (other.folder / "conf.d").iterdir()} == {
        each.name for each in (signed_in.folder / "conf.d").iterdir()
    }
    assert (other.state_dir / "mailferry.key").read_text() != (signed_in.state_dir / "mailferry.key").read_text()
    again = restore(other, "--configuration", file="../b")
    assert "0 sign-ins restored, 1 are there as they were." in again.output
    assert "0 files of conf.d written, 4 are there." in again.output
    assert SPOOL not in files(other)


def test_beside_a_daemon_the_account_works_at_once(signed_in: Home, turning_reactor: Turning) -> None:
    backup(signed_in)
    for each in signed_in.state_dir.glob("tokens.sqlite*"):
        each.unlink()  # moved away, as a damaged one would be
    with closing(Beside(signed_in, turning_reactor)) as beside:
        assert state(signed_in) == "sign_in_needed"
        assert "1 sign-in restored" in restore(signed_in).output
        assert state(signed_in) == "connecting"
        assert beside.reloads == 0
    assert SPOOL not in files(signed_in)


def test_with_its_configuration_the_daemon_reloads(furnished: Home, turning_reactor: Turning) -> None:
    backup(furnished, "--configuration")
    furnished.run("account", "remove", DESK)
    with closing(Beside(furnished, turning_reactor)) as beside:
        told = restore(furnished, "--configuration")
        assert "1 file of conf.d written, 3 are there." in told.output
        assert beside.reloads == 1
        assert [each.name for each in beside.office.config.accounts] == [ALICE, DESK]


def test_what_is_newer_is_kept_unless_it_is_to_be_replaced(signed_in: Home, identity: IdentityProvider) -> None:
    backup(signed_in)
    signed_in.run("sign-in", ALICE, "--paste", types=person(identity))
    told = restore(signed_in, exit_code=1)
    assert "0 sign-ins restored, 0 are there as they were." in told.output
    assert f"Kept, because they are newer here or not from this store: sign-ins: work/{ALICE}\n" in told.errors
    assert "mailferry restore --replace" in told.errors
    assert "1 sign-in would be restored" in restore(signed_in, "--replace", "--check").output
    assert "1 sign-in restored" in restore(signed_in, "--replace").output
    assert "0 sign-ins restored, 1 are there as they were." in restore(signed_in).output


def test_a_file_of_conf_d_that_differs_is_kept_unless_it_is_to_be_replaced(signed_in: Home) -> None:
    backup(signed_in, "--configuration")
    old = signed_in.written("app-work.yaml")
    signed_in.run("app", "change", "work", "--disable")
    told = restore(signed_in, "--configuration", exit_code=1)
    assert "files of conf.d: app-work.yaml" in told.errors
    assert signed_in.written("app-work.yaml") != old
    restore(signed_in, "--configuration", "--replace")
    assert signed_in.written("app-work.yaml") == old


def test_a_configuration_that_would_not_load_stops_all(signed_in: Home) -> None:
    backup(signed_in, "--configuration")
    signed_in.run("sign-out", ALICE)
    signed_in.run("account", "remove", DESK)
    (signed_in.folder / "secret").unlink()  # which the file of the backup's app names
    signed_in.run("app", "list", exit_code=2)
    (signed_in.folder / "conf.d" / "app-robot.yaml").unlink()
    told = restore(signed_in, "--configuration", "--replace", exit_code=2)
    assert str(signed_in.folder / "secret") in told.errors
    assert state(signed_in) == "sign_in_needed", "the sign-in is not restored either"


def test_a_check_restores_nothing(signed_in: Home, tmp_path: Path) -> None:
    backup(signed_in, "--configuration")
    (tmp_path / "elsewhere").mkdir()
    other = Home(tmp_path / "elsewhere")
    told = restore(other, "--configuration", "--check", file="../b")
    assert "1 sign-in would be restored" in told.output
    assert "4 files of conf.d would be written" in told.output
    assert list((other.folder / "conf.d").iterdir()) == []
    assert "1 sign-in would be restored" in restore(other, "--check", file="../b").output


def test_a_check_without_any_configuration_makes_none(signed_in: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(signed_in, "--configuration")
    monkeypatch.setenv("HOME", str(signed_in.folder / "nobody"))
    monkeypatch.delenv("MAILFERRY_CONFIG", raising=False)
    monkeypatch.setattr("proxy.config.locate", lambda *_: None)
    told = restore(signed_in, "--configuration", "--check")
    assert "4 files of conf.d would be written" in told.output
    assert [each.name for each in (signed_in.folder / "nobody").iterdir()] == [".local"], "the state folder alone"


@pytest.mark.parametrize(
    ("file", "passphrase", "exit_code", "told"),
    [
        ("b", "wrong", 1, "b: The passphrase is not the one that this backup was made with."),
        ("none", PASSPHRASE, 2, "none cannot be opened: no such file or directory."),
        ("config.yaml", PASSPHRASE, 1, "config.yaml: This is no backup that `mailferry backup` wrote."),
        ("b", "", 2, "Give the passphrase: at the prompt, or as a line on standard input."),
    ],
)
def test_what_cannot_be_restored_is_told(
    signed_in: Home, file: str, passphrase: str, exit_code: int, told: str
) -> None:
    backup(signed_in)
    before = files(signed_in)
    errors = restore(signed_in, file=file, passphrase=passphrase, exit_code=exit_code).errors
    assert errors.endswith(f"{told}\n")
    assert files(signed_in) == before


def test_a_disk_that_takes_nothing_is_told_and_nothing_is_left(
    signed_in: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(signed_in)

    def full(folder: Path, name: str, _: str) -> None:
        (folder / name).write_text("a part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "write_atomically", full)
    assert "restore.sealed cannot be written: no space left on device" in restore(signed_in, exit_code=1).errors
    assert SPOOL not in files(signed_in)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_who_waits_sees_what_goes_on(signed_in: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "StringIO", Terminal)  # standard error, in `Home.run`
    assert "Making a key of the passphrase ..." in backup(signed_in).errors
    assert "1 sign-in, as of 20" in restore(signed_in).errors
    assert "Sealing every sign-in with a new key ..." in signed_in.run("key", "rotate").errors
