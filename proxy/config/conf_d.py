"""GROUND: the files that mailferry itself writes: one app or one account each, in `conf.d/` beside the main file.

A change is judged first, by reading the configuration as it would be; what would not load is not written. A file that
a person wrote is never touched: what stands there is theirs to change, and the error says where. Called by the command
line and the page; the caller's daemon reloads afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from proxy.config.accounts import FIRST_PASSWORD
from proxy.config.document import MappingNode, Node, ScalarNode, SequenceNode, Value, parse, plain, render
from proxy.config.files import make_folder, open_folder, reason, remove, write_atomically
from proxy.config.findings import ConfigurationError, Place, Report, quoted, refusal
from proxy.config.read import Source, gather, interpret

MAX_FILE_NAME_OCTETS = 200  # file systems take 255; room for the temporary file's ending
_FOLDER_MODE = 0o700
_HEAD = "# Written by mailferry, which rewrites and removes it by its commands and its page.\n"


def write_app(config_file: Path, name: str, app: Mapping[str, Value], environ: Mapping[str, str]) -> Path:
    """Write the keys of one app, in place of what mailferry wrote about it before. Returns the file.

    Raises:
        ConfigurationError: the configuration would not load, or the file cannot be written; nothing is changed.
    """
    file = _file(config_file, "app", name)
    with _changing(config_file) as sources:
        _check_ours(file, "app", name, sources)
        _put(config_file, file, {"apps": {name: app}}, sources, environ)
    return file


def write_account(config_file: Path, account: Mapping[str, Value], environ: Mapping[str, str]) -> Path:
    """Write the keys of one account, `login` among them; its first login names the file. Otherwise as `write_app`."""
    logins = account.get("login")
    login = logins if isinstance(logins, str) else next(iter(logins), "") if isinstance(logins, list | tuple) else ""
    file = _file(config_file, "account", str(login))
    with _changing(config_file) as sources:
        _check_ours(file, "account", str(login), sources)
        _put(config_file, file, {"accounts": [account]}, sources, environ)
    return file


def judge_app(config_file: Path, name: str, app: Mapping[str, Value], environ: Mapping[str, str]) -> None:
    """What `write_app` would say of it, with nothing written. Raises: ConfigurationError: the same."""
    file = _file(config_file, "app", name)
    with _changing(config_file) as sources:
        _judge(config_file, Source(file, render({"apps": {name: app}}), None), sources, environ)


def remove_app(config_file: Path, name: str, environ: Mapping[str, str]) -> Path:
    """Remove the file of an app that mailferry wrote. Returns the file.

    Raises:
        ConfigurationError: there is no such app, it stands in a file that a person wrote, accounts still use it, or the
            file cannot be removed; nothing is changed.
    """
    return _remove(config_file, "app", name, environ)


def remove_account(config_file: Path, login: str, environ: Mapping[str, str]) -> Path:
    """Remove the file of the account with this login, in any case. Returns the file. Raises: as `remove_app`."""
    return _remove(config_file, "account", login, environ)


def change_app(config_file: Path, name: str, changes: Mapping[str, Value], environ: Mapping[str, str]) -> Path:
    """Change some keys of an app that mailferry wrote; None takes a key away. Returns the file.

    Raises:
        ConfigurationError: as `remove_app`; or the configuration would not load.
    """
    with _changing(config_file) as sources:
        file, node = _find_ours(config_file, "app", name, sources)
        written = next(
            names[0] for source in sources if source.file == file for names, _ in _definitions(source, "app")
        )
        _put(config_file, file, {"apps": {written: {**_entries(node), **changes}}}, sources, environ)
    return file


def change_account(config_file: Path, login: str, changes: Mapping[str, Value], environ: Mapping[str, str]) -> Path:
    """Change some keys of an account that mailferry wrote; its login stays. Otherwise as `change_app`."""
    with _changing(config_file) as sources:
        file, node = _find_ours(config_file, "account", login, sources)
        _put(config_file, file, {"accounts": [{**_entries(node), **changes}]}, sources, environ)
    return file


def add_password(config_file: Path, login: str, password: Mapping[str, Value], environ: Mapping[str, str]) -> Path:
    """Give an account that mailferry wrote a password: `{hash, name, protocols, from}`. Returns the file.

    One of the same name is replaced; a password without a name is the account's first, `main`.

    Raises:
        ConfigurationError: as `remove_app`; or the configuration would not load.
    """
    name = password.get("name") or FIRST_PASSWORD
    with _changing(config_file) as sources:
        file, node = _find_ours(config_file, "account", login, sources)
        others = [each for each in _passwords(node) if each.get("name", FIRST_PASSWORD) != name]
        account = {**_entries(node), "password": [*others, password]}
        _put(config_file, file, {"accounts": [account]}, sources, environ)
    return file


def remove_password(config_file: Path, login: str, name: str, environ: Mapping[str, str]) -> Path:
    """Take this password from an account that mailferry wrote. Returns the file.

    Raises:
        ConfigurationError: as `remove_app`; or it has no such password, or no other.
    """
    with _changing(config_file) as sources:
        file, node = _find_ours(config_file, "account", login, sources)
        passwords = _passwords(node)
        others = [each for each in passwords if each.get("name", FIRST_PASSWORD) != name]
        if len(others) == len(passwords):
            raise refusal(file, f"there is no password {quoted(name)}", f"see `mailferry account show {login}`")
        if not others:
            raise refusal(file, f"{quoted(name)} is its only password", f"make a new one: mailferry password {login}")
        _put(config_file, file, {"accounts": [{**_entries(node), "password": others}]}, sources, environ)
    return file


def is_ours(config_file: Path, kind: Literal["app", "account"], name: str) -> bool:
    """Whether mailferry wrote the app or account of this name, and so may change it."""
    return _file(config_file, kind, name).is_file()


def _entries(node: MappingNode) -> dict[str, Value]:
    return {key: plain(value) for key, value in node.entries.items()}


def _passwords(account: MappingNode) -> list[Mapping[str, Value]]:
    return [_password(node) for node in _items(account.entries.get("password"))]


def _password(node: Node) -> Mapping[str, Value]:
    password = plain(node)
    return password if isinstance(password, Mapping) else {"hash": password}


def _remove(config_file: Path, kind: str, name: str, environ: Mapping[str, str]) -> Path:
    with _changing(config_file) as sources:
        file, _ = _find_ours(config_file, kind, name, sources)
        interpret(config_file, [source for source in sources if source.file != file], environ, Report())
        try:
            remove(file.parent, file.name)
        except OSError as error:
            raise refusal(file, f"cannot be removed: {reason(error)}", "see to the rights of its folder") from error
    return file


def _put(
    config_file: Path, file: Path, content: Mapping[str, Value], sources: list[Source], environ: Mapping[str, str]
) -> None:
    """Write this content, once the configuration with it has been read without an error."""
    text = _HEAD + render(content)
    _judge(config_file, Source(file, text, None), sources, environ)
    try:
        write_atomically(file.parent, file.name, text)
    except OSError as error:
        raise refusal(
            file, f"cannot be written: {reason(error)}", "see to the disk's room and the folder's rights"
        ) from error


def _judge(config_file: Path, new: Source, sources: list[Source], environ: Mapping[str, str]) -> None:
    """Read the configuration as it would be with this file."""
    others = [source for source in sources if source.file != new.file]
    changed = [others[0], *sorted([*others[1:], new], key=lambda source: source.file.name)]
    interpret(config_file, changed, environ, Report())


@contextlib.contextmanager
def _changing(config_file: Path) -> Iterator[list[Source]]:
    """All files of the configuration, while nobody else changes conf.d.

    The lock is held for one check and one write, and the system lets go of it when its holder dies.
    """
    folder = config_file.parent / "conf.d"
    report = Report()
    try:
        make_folder(folder, _FOLDER_MODE)
        with open_folder(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            sources = gather(config_file, report)
            if report.errors:
                raise ConfigurationError(report.findings)
            yield sources
    except OSError as error:
        remedy = "let mailferry write this folder, which must be no symbolic link"
        raise refusal(folder, f"cannot be changed: {reason(error)}", remedy) from error


def _file(config_file: Path, kind: str, name: str) -> Path:
    """conf.d/KIND-NAME.yaml; the name in one case and percent-encoded, so that two names never share a file."""
    encoded = quote(name.casefold(), safe="@+", errors="replace")
    if not name or not name.isprintable() or len(encoded) > MAX_FILE_NAME_OCTETS:
        raise refusal(config_file, f"{kind} {quoted(name)}: no file can have this name", "choose a shorter, plain one")
    return config_file.parent / "conf.d" / f"{kind}-{encoded}.yaml"


def _definitions(source: Source, kind: str) -> Iterator[tuple[tuple[str, ...], MappingNode]]:
    """The apps or accounts that stand in this file, with their names."""
    entries = parse(source.file, source.text, Report()).entries
    if kind == "app":
        apps = entries.get("apps")
        for name, app in apps.entries.items() if isinstance(apps, MappingNode) else ():
            if isinstance(app, MappingNode):
                yield (name,), app
        return
    for account in _items(entries.get("accounts")):
        if isinstance(account, MappingNode):
            logins = _items(account.entries.get("login"))
            yield tuple(login.text for login in logins if isinstance(login, ScalarNode)), account


def _items(node: Node | None) -> Iterable[Node]:
    """The items of a list; a single value stands for a list of one, as in `fields.Section.items`."""
    return node.items if isinstance(node, SequenceNode) else (node,) if node else ()


def _find_ours(config_file: Path, kind: str, name: str, sources: list[Source]) -> tuple[Path, MappingNode]:
    """The file and the node of an app or account that mailferry wrote."""
    for source in sources:
        for names, node in _definitions(source, kind):
            if name.casefold() in (each.casefold() for each in names):
                if source.file != _file(config_file, kind, names[0]):
                    raise _not_ours(kind, name, node.place)
                _check_ours(source.file, kind, names[0], sources)
                return source.file, node
    raise refusal(config_file, f"there is no {kind} {quoted(name)}", f"see `mailferry {kind} list`")


def _check_ours(file: Path, kind: str, name: str, sources: list[Source]) -> None:
    """Refuse to touch a file that is not as mailferry writes it: a link, or with more than this one thing in it."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise refusal(file, "is a symbolic link or no file, and is not touched", "replace it by hand")
    for source in sources:
        if source.file == file:
            for other in ("app", "account"):
                for names, node in _definitions(source, other):
                    if other != kind or name.casefold() not in (each.casefold() for each in names):
                        raise _not_ours(other, names[0] if names else "", node.place)


def _not_ours(kind: str, name: str, place: Place) -> ConfigurationError:
    return refusal(
        place.file,
        f"{kind} {quoted(name)} stands in a file that you wrote, and mailferry does not change it",
        "change it there, then run `mailferry check`",
        line=place.line,
        key=place.key,
    )
