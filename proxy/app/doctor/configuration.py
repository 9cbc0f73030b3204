"""The configuration's files: what they say wrong, and whether others on this machine can read what is private.

What it is not: the rules of the configuration (`proxy/config`), which finds most of this itself; its findings are told
here in the doctor's form.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from proxy.app.asking import SOCKET_NAME
from proxy.app.doctor.findings import Finding, fail, ok, warn
from proxy.app.doctor.scene import MAX_ACCOUNTS, Scene
from proxy.config.files import exposure
from proxy.login import Fault

FILES = "configuration"
MODES = "files"


def check_configuration(scene: Scene) -> Iterator[Finding]:
    """What reading found; one finding for each error and warning, or one that says it holds."""
    config = scene.config
    if scene.file is None:
        yield warn(
            FILES,
            "Configuration",
            "There is no configuration file yet; the defaults hold, and no account can log in.",
            Fault.MAILFERRY,
            "Run `mailferry serve` once, which makes one, then `mailferry app add NAME`.",
        )
    for found in scene.faults:
        tell = fail if found.severity == "error" else warn
        where = f"{found.file}, line {found.line}" + (f", {found.key}" if found.key else "")
        cause = f"{found.key or found.file.name}: {found.problem}." if found.key else f"It {found.problem}."
        yield tell(FILES, f"Configuration {where}", cause, Fault.MAILFERRY, _sentence(found.remedy))
    if not scene.broken and scene.file is not None:
        census = ", ".join(
            f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
            for things, name in ((config.listeners, "listener"), (config.apps, "app"), (config.accounts, "account"))
        )
        yield ok(FILES, "Configuration", f"{scene.file} holds: {census}.")
    if scene.broken and scene.running:
        yield warn(
            FILES,
            "Configuration",
            "The daemon still works with what it read before; it cannot start again with what stands there now.",
            Fault.MAILFERRY,
            "Mend the lines above, then reload: `mailferry check` tells when they hold.",
        )
    yield from _accounts(scene)


def check_files(scene: Scene) -> Iterator[Finding]:
    """The state folder and what lies in it; the files with secrets."""
    troubles = [*_state_folder(scene.config.state_dir, _user(scene)), *_private_files(scene)]
    yield from troubles
    if not troubles:
        yield ok(MODES, "Files", f"The state folder {scene.config.state_dir} can be used, and nobody else can read it.")


def _accounts(scene: Scene) -> Iterator[Finding]:
    config = scene.config
    if scene.login is not None and not scene.accounts:
        yield fail(
            FILES,
            f"Account {scene.login}",
            f"There is no account {scene.login!r} in the configuration.",
            Fault.MAILFERRY,
            f"See `mailferry account list`; a new one: mailferry account add {scene.login}",
        )
    elif not config.accounts and not scene.broken and scene.file is not None:
        yield warn(
            FILES,
            "Accounts",
            "There is no account yet, so no mail program can log in.",
            Fault.MAILFERRY,
            f"Run: {'mailferry account add LOGIN' if config.apps else 'mailferry app add NAME'}",
        )
    elif scene.login is None and len(config.accounts) > MAX_ACCOUNTS:
        yield ok(
            FILES,
            "Accounts",
            f"Of {len(config.accounts)} accounts the first {MAX_ACCOUNTS} are examined. Name one to examine it.",
        )


def _user(scene: Scene) -> int:
    """Whose the folder should be: the daemon's user where it runs, for root may look too; else our own."""
    pid = scene.about.get("pid") if scene.about else None
    try:
        return os.stat(f"/proc/{pid}").st_uid if pid else os.geteuid()
    except OSError:
        return os.geteuid()


def _state_folder(folder: Path, user: int) -> Iterator[Finding]:
    title = f"State folder {folder}"
    try:
        facts = folder.stat()
    except FileNotFoundError:
        yield from _missing_folder(folder, title)
        return
    except OSError as error:
        yield _unusable(title, f"It cannot be looked at: {error.strerror}.", f"Let mailferry's user reach {folder}.")
        return
    if not stat.S_ISDIR(facts.st_mode):
        yield _unusable(title, "It is not a folder.", "Remove that file, or write another state_dir.")
        return
    if facts.st_uid != user:
        yield _unusable(
            title,
            f"It belongs to another user (uid {facts.st_uid}) than mailferry runs as (uid {user}).",
            f"Run mailferry as that user (sudo -u '#{facts.st_uid}' mailferry doctor), or: chown -R {user} {folder}",
        )
    elif trouble := _trouble_writing(folder):
        yield _unusable(
            title, f"Nothing can be written there: {trouble}. Tokens could not be kept.", _write_remedy(folder)
        )
    elif facts.st_mode & 0o022:
        yield _unusable(
            title,
            f"Other users may write in it (mode {stat.S_IMODE(facts.st_mode):04o}); mailferry refuses to work there.",
            f"Run: chmod 700 {folder}",
        )
    elif facts.st_mode & 0o055:
        yield warn(
            MODES,
            title,
            f"Other users can look into it (mode {stat.S_IMODE(facts.st_mode):04o}).",
            Fault.MAILFERRY,
            f"Run: chmod 700 {folder}",
        )


def _missing_folder(folder: Path, title: str) -> Iterator[Finding]:
    parent = next((each for each in folder.parents if each.exists()), folder)
    if trouble := _trouble_writing(parent):
        yield _unusable(
            title,
            f"It is not there, and mailferry cannot make it in {parent}: {trouble}.",
            f"Make it for mailferry's user (mkdir -m 700 {folder}), or write another state_dir.",
        )
    else:
        yield ok(MODES, title, "It is not there yet; mailferry makes it on its first start.")


def _trouble_writing(folder: Path) -> str | None:
    """Why nothing can be written there, tried with an empty file; None if it can."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            return None
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _write_remedy(folder: Path) -> str:
    return f"Run: chmod 700 {folder}; if the disk is full or read-only, see to the disk."


def _unusable(title: str, cause: str, remedy: str) -> Finding:
    return fail(MODES, title, cause, Fault.MAILFERRY, remedy)


def _private_files(scene: Scene) -> Iterator[Finding]:
    """Files that a person or a backup may have opened to others, and that reading the configuration does not judge."""
    config = scene.config
    private = {
        config.state_dir / "tokens.sqlite": "the tokens",
        config.state_dir / SOCKET_NAME: "the control socket",
        config.state_dir / "tls" / "ca.key": "the local authority's key",
        config.state_dir / "tls" / "server.key": "the local certificate's key",
    }
    if config.key.created or scene.broken:
        private[config.key.file] = "the store's key"
    for file, what in private.items():
        try:
            facts = file.stat()
        except OSError:
            continue
        exposed = exposure(facts)
        already = any(str(file) in f"{fault.problem} {fault.remedy}" for fault in scene.faults)
        if exposed and not already:
            yield fail(
                MODES,
                f"File {file}",
                f"It holds {what}, and {exposed}." if what != "the control socket" else f"It is {what}, and {exposed}.",
                Fault.MAILFERRY,
                f"Run: chmod 600 {file}",
            )


def _sentence(text: str) -> str:
    """A remedy that follows a semicolon, as one that stands alone; a command stays as it is typed."""
    if text.startswith(("chmod ", "chown ")):
        return f"Run: {text}"
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "?")) else ".")
