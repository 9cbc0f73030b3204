"""`key rotate`, `backup` and `restore` on the real daemon, while logins go on; and what a damaged store comes to."""

from __future__ import annotations

import random
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.ferry import COMMAND, COMMAND_DEADLINE_S, ROOT, Ferry, Told
from tests.servers.mailhost import MailHost, Person

PASSPHRASE = "the passphrase that no log may hold"
KILLS = 4
KILL_WITHIN_S = 0.02  # of the moment when the new key is there: the rotation takes some 20 ms


@contextmanager
def logging_in(ferry: Ferry, *people: Person) -> Iterator[list[bool]]:
    """All of them log in again and again, each in a thread; how each login ended, so far."""
    outcomes: list[bool] = []
    over = threading.Event()

    def go_on(person: Person) -> None:
        while not over.is_set():
            outcomes.append(ferry.logs_in(person))

    threads = [threading.Thread(target=go_on, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in threads:
            thread.join()


def with_passphrase(ferry: Ferry, *arguments: str, exit_code: int = 0) -> Told:
    command = ferry.start(*arguments)
    command.write(PASSPHRASE)
    return command.end(exit_code)


def private_files(folder: Path) -> bool:
    return all(stat.S_IMODE(file.stat().st_mode) & 0o077 == 0 for file in folder.iterdir())


def test_all_three_while_logins_go_on(new_ferry: Ferry) -> None:
    people = [new_ferry.ready_account() for _ in range(2)]
    new_ferry.serve()
    key = new_ferry.state_dir / "mailferry.key"
    keys = {key.read_text()}
    file = new_ferry.folder / "mailferry.backup"
    with logging_in(new_ferry, *people) as outcomes:
        for _ in range(2):
            assert "2 sign-ins sealed with a new key." in new_ferry.run("key", "rotate").output
            keys.add(key.read_text())
            assert "2 sign-ins sealed in" in with_passphrase(new_ferry, "backup", str(file)).output
        before = len(outcomes)
        assert "2 are there as they were" in with_passphrase(new_ferry, "restore", str(file)).output
        new_ferry.run("sign-out", people[0].upn)
    assert before > 0
    assert len(keys) == 3
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with_passphrase(new_ferry, "restore", str(file), "--replace")
    with logging_in(new_ferry, *people) as restored:
        new_ferry.run("key", "rotate")
    assert all(restored)
    assert all(outcomes[:before])
    new_ferry.stop()
    new_ferry.serve()
    assert all(map(new_ferry.logs_in, people)), "a restart reads it with the last key"
    assert private_files(new_ferry.state_dir)
    assert PASSPHRASE not in new_ferry.log


def test_a_backup_moves_everything_to_another_machine(
    new_ferry: Ferry, mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    person = new_ferry.ready_account()
    new_ferry.serve()
    file = new_ferry.folder / "mailferry.backup"
    with_passphrase(new_ferry, "backup", str(file), "--configuration")
    with closing(Ferry(tmp_path_factory.mktemp("other"), mail_host)) as other:
        other.passwords = dict(new_ferry.passwords)
        other.serve()
        assert not other.logs_in(person)
        told = with_passphrase(other, "restore", str(file), "--configuration")
        assert "1 sign-in restored" in told.output
        assert "2 files of conf.d written" in told.output
        assert other.logs_in(person), "with the old password, and without a restart"
        again = with_passphrase(other, "restore", str(file), "--configuration", "--check")
        assert "2 are there" in again.output


def test_a_damaged_store_is_told_left_as_it_is_and_restored(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    file = new_ferry.folder / "mailferry.backup"
    with_passphrase(new_ferry, "backup", str(file))
    store = new_ferry.state_dir / "tokens.sqlite"
    octets = bytearray(store.read_bytes())
    octets[4096:4196] = b"\xff" * 100
    store.write_bytes(octets)
    assert "is damaged" in new_ferry.run("serve", exit_code=1).errors
    assert store.read_bytes() == octets
    told = with_passphrase(new_ferry, "restore", str(file), exit_code=1)
    assert f"move {store}* away, and run `mailferry restore FILE`" in told.errors
    assert store.read_bytes() == octets
    store.rename(new_ferry.folder / "damaged")
    assert "1 sign-in restored" in with_passphrase(new_ferry, "restore", str(file)).output
    new_ferry.serve()
    assert new_ferry.logs_in(person)


def test_a_lost_key_is_told_and_no_other_is_made(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    key = new_ferry.state_dir / "mailferry.key"
    kept = key.rename(new_ferry.folder / "kept.key")
    assert "There is no key file" in new_ferry.run("serve", exit_code=1).errors
    assert not key.exists()
    kept.rename(key)
    new_ferry.serve()
    assert new_ferry.logs_in(person)


def test_sigkill_in_a_rotation_leaves_a_store_that_opens(new_ferry: Ferry) -> None:
    person = new_ferry.ready_account()
    for _ in range(KILLS):
        new_ferry.serve()
        rotating = subprocess.Popen(
            [*COMMAND, "--config", str(new_ferry.config), "key", "rotate"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while rotating.poll() is None and not (new_ferry.state_dir / "mailferry.key.next").exists():
            pass  # it is there for some milliseconds only
        threading.Event().wait(random.uniform(0, KILL_WITHIN_S))
        new_ferry.kill()
        rotating.wait(COMMAND_DEADLINE_S)
        new_ferry.serve()
        assert new_ferry.logs_in(person)
        new_ferry.stop()
    assert "1 sign-in sealed with a new key." in new_ferry.run("key", "rotate").output
