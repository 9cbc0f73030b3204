"""The verbs `key rotate`, `backup` and `restore`: the sealed store as something that an operator keeps.

What is done to the store is done where it is held: by the daemon, or without one by this command's own office
(`custody.py`). A backup's passphrase is asked for here, or read from standard input, and goes no further.
"""

from __future__ import annotations

import base64
import datetime
import os
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from proxy import config as configuration
from proxy.accounts.backup import (
    MAX_BACKUP_OCTETS,
    Backup,
    BackupUnusable,
    is_backup,
    new_head,
    open_files,
    open_records,
    parse,
    seal_files,
)
from proxy.app.answers import EXIT_FAILED, DeskError
from proxy.app.counter import Counter, reload_daemon
from proxy.app.custody import SPOOL
from proxy.app.verbs.lookup import find_config, find_main_file
from proxy.app.verbs.terminal import UsageError, read_line
from proxy.config import Config
from proxy.config.bundle import Placed, put_files, read_files
from proxy.config.files import FileTrouble, read_regular, reason, write_atomically

SHORT_PASSPHRASE_CHARACTERS = 12
_BEGINNING_OCTETS = 64


def key_rotate(options: Namespace) -> int:
    with Counter(find_config(options)) as counter:
        _progress("Sealing every sign-in with a new key ...")
        done = counter.ask("rotate_key")
    print(
        f"{_count(done['records'], 'sign-in')} sealed with a new key. The old one opens older copies of the store only."
    )
    if done["left_to_do"]:
        print(done["left_to_do"], file=sys.stderr)
    else:
        print("If you keep a copy of the key elsewhere, copy it again now. Backups need no key.")
    return 0


# --- backup


def backup(options: Namespace) -> int:
    config = find_config(options)
    _check_target(options.file)
    files = read_files(config.file) if options.configuration else {}
    passphrase = _new_passphrase()
    head = new_head(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))
    _progress("Making a key of the passphrase ...")
    key = head.key(passphrase)
    with Counter(config) as counter:
        _progress("Sealing ...")
        sealed = counter.ask("back_up", key=_text(key), head=head.text)
    whole = Backup(head, sealed["box"], seal_files(key, head.text, files))
    try:
        write_atomically(options.file.parent.resolve(), options.file.name, whole.text)
    except OSError as error:
        raise DeskError(f"{options.file} cannot be written: {reason(error)}.") from None
    what = _count(sealed["records"], "sign-in") + (f" and {_count(len(files), 'file')} of conf.d" if files else "")
    print(f"{what} sealed in {options.file}. Nobody opens it without the passphrase: keep that elsewhere.")
    return 0


def _check_target(file: Path) -> None:
    """See that nothing but an older backup is written over. Raises: UsageError."""
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}.")
    if os.path.lexists(file) and not is_backup(_read(file, MAX_BACKUP_OCTETS)[:_BEGINNING_OCTETS]):
        raise UsageError(f"{file} is there and is no backup of mailferry; it is not written over. Choose another name.")


def _new_passphrase() -> str:
    passphrase = _passphrase("A passphrase for the backup: ")
    if sys.stdin.isatty() and passphrase != read_line("The same once more: ", hidden=True):
        raise UsageError("The two are not the same. Nothing was written.")
    if len(passphrase) < SHORT_PASSPHRASE_CHARACTERS:
        print(
            f"The passphrase has less than {SHORT_PASSPHRASE_CHARACTERS} characters: who gets the file may guess it.",
            file=sys.stderr,
        )
    return passphrase


# --- restore


def restore(options: Namespace) -> int:
    config = find_config(options)
    try:
        return _restore(options, config)
    except BackupUnusable as error:
        raise DeskError(f"{options.file}: {error.text}") from None


def _restore(options: Namespace, config: Config) -> int:
    """Everything is verified before anything is written. Raises: BackupUnusable."""
    found = parse(_read(options.file, MAX_BACKUP_OCTETS).decode("utf-8", "replace"))
    passphrase = _passphrase("The backup's passphrase: ")
    _progress("Making the key of the passphrase ...")
    key, head = found.head.key(passphrase), found.head.text
    snapshot, files = open_records(key, head, found.records), open_files(key, head, found.files)
    _progress(f"{_count(len(snapshot.records), 'sign-in')}, as of {found.head.made_at}.")
    placed = _put_files(options, files, rehearse=True)
    records = _put_records(options, config, _text(key), head, found.records)
    if placed.written and not options.check:
        placed = _put_files(options, files, rehearse=False)
        for warning in reload_daemon(config):
            print(warning, file=sys.stderr)
    names = {kind: [name.removeprefix("grant/") for name in records[kind]] for kind in ("written", "same", "kept")}
    return _tell(options, names, placed)


def _put_files(options: Namespace, files: dict[str, str], *, rehearse: bool) -> Placed:
    if not options.configuration or not files:
        return Placed((), (), ())
    if rehearse and configuration.locate(options.config, os.environ) is None:
        return Placed(tuple(files), (), ())  # beside the main file that is made before they are written
    return put_files(find_main_file(options), files, os.environ, replace=options.replace, rehearse=rehearse)


def _put_records(options: Namespace, config: Config, key: str, head: str, box: str) -> dict[str, Any]:
    spool = config.state_dir / SPOOL
    with Counter(config) as counter:
        counter.ask("look_at_store")  # now there is a state folder, and somebody who has opened the store
        try:
            write_atomically(config.state_dir, SPOOL, box)
            return counter.ask("restore", key=key, head=head, replace=options.replace, rehearse=options.check)
        except OSError as error:
            raise DeskError(f"{spool} cannot be written: {reason(error)}. Nothing was restored.") from None
        finally:
            with suppress(OSError):
                spool.unlink()


def _tell(options: Namespace, names: dict[str, list[str]], placed: Placed) -> int:
    would = "would be " if options.check else ""
    print(f"{_count(len(names['written']), 'sign-in')} {would}restored, {len(names['same'])} are there as they were.")
    if options.configuration:
        print(f"{_count(len(placed.written), 'file')} of conf.d {would}written, {len(placed.same)} are there.")
    kept = {"sign-ins": names["kept"], "files of conf.d": placed.kept}
    if options.replace or not any(kept.values()):
        return 0
    for what, which in kept.items():
        if which:
            print(
                f"Kept, because they are newer here or not from this store: {what}: {', '.join(which)}", file=sys.stderr
            )
    print("To have the backup's instead: mailferry restore --replace", file=sys.stderr)
    return EXIT_FAILED


# --- what they share


def _passphrase(prompt: str) -> str:
    passphrase = read_line(prompt, hidden=True)
    if not passphrase:
        raise UsageError("Give the passphrase: at the prompt, or as a line on standard input.")
    return passphrase


def _read(file: Path, limit_octets: int) -> bytes:
    try:
        return read_regular(file, limit_octets)[0]
    except FileTrouble as trouble:
        raise UsageError(f"{file} {trouble}.") from None


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _progress(text: str) -> None:
    """What is going on, for a person who waits."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
