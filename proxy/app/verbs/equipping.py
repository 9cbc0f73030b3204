"""The verb `settings`: what to type into a mail program, or its file. `programs` knows it; here it is printed."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from proxy.app.answers import EXIT_FAILED, DeskError
from proxy.app.certificates import announcements, read_authority
from proxy.app.programs.clients import CLIENTS, Client, find_client, guide
from proxy.app.programs.connection import Connection, Unreachable
from proxy.app.programs.guide import File, Guide, Needs, as_text
from proxy.app.programs.reach import connect
from proxy.app.verbs.lookup import find_account, find_config
from proxy.app.verbs.terminal import UsageError, print_table
from proxy.config import Config


def settings(options: Namespace) -> int:
    """Without `--for` the programs are listed."""
    config = find_config(options)
    account = find_account(config, options.login)
    if not options.client:
        return _list(options)
    client = find_client(options.client)
    if client is None:
        names = ", ".join(each.name for each in CLIENTS)
        raise UsageError(f"Nothing is known of a program {options.client!r}. These are: {names}.")
    connection = connect(config, account, read_authority(config), host=options.host or "", private=options.tls)
    try:
        made = guide(client, connection)
    except Unreachable as error:
        raise DeskError(str(error), EXIT_FAILED) from None
    _announce(config)
    if options.json:
        print(json.dumps(_document(client, made), indent=2, ensure_ascii=False))
    elif options.output:
        _write(Path(options.output), client, made, connection)
    elif made.plain:
        _warn(made)
        sys.stdout.write(made.files[0].text)
    else:
        print(as_text(made, _way(connection.login), _file_way(client, connection.login)), end="")
    return 0


def _list(options: Namespace) -> int:
    rows = [{"for": each.name, "program": each.title, "gives": each.gives} for each in CLIENTS]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    print_table(rows, ("for", "program", "gives"), "")
    print(f"\nFor one of them: mailferry settings {shlex.quote(options.login)} --for thunderbird")
    return 0


def _write(target: Path, client: Client, made: Guide, connection: Connection) -> None:
    """The guide's files: the first under this name, the others beside it. A guide without files is a text itself."""
    text = as_text(made, _way(connection.login), _file_way(client, connection.login))
    if not made.files:
        _put(target, text.encode())
        print(f"Written: {target}")
        return
    first = True
    names = {}
    for file in made.files:
        path = target if first else target.with_name(file.name)
        names[file.name] = path.name
        _put(path, file.octets)
        print(f"Written: {path}")
        first = False
    _warn(made)
    if not made.plain:
        print()
        print(as_text(made, _way(connection.login), lambda file: f"The file is {names[file.name]}."), end="")


def _put(path: Path, octets: bytes) -> None:
    """For this person alone: a file of settings names its owner. Afterwards there is the old file or the whole new one.

    Raises: DeskError.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.", delete=False) as draft:
            draft.write(octets)  # its mode is 0600
        Path(draft.name).replace(path)
    except OSError as error:
        raise DeskError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}.") from None


def _warn(made: Guide) -> None:
    for note in made.notes:
        print(f"mailferry: {note}", file=sys.stderr)


def _announce(config: Config) -> None:
    for change in announcements(config, time.time()):
        print(f"mailferry: {change} See `mailferry ca`.", file=sys.stderr)


def _way(login: str) -> Callable[[Needs], str]:
    ways = {
        Needs.CERTIFICATE: "mailferry ca --output mailferry-ca.crt      (for each system: mailferry ca --steps SYSTEM)",
        Needs.DEVICE_PASSWORD: (
            f"mailferry password {shlex.quote(login)} --name scanner --protocols smtp --from ADDRESS-OF-THE-DEVICE"
        ),
    }
    return lambda needs: ways[needs]


def _file_way(client: Client, login: str) -> Callable[[File], str]:
    given = f"{shlex.quote(login)} --for {client.name}"
    return lambda file: f"{file.name} is written by: mailferry settings {given} --output FILE"


def _document(client: Client, made: Guide) -> dict[str, object]:
    return {
        "for": client.name,
        "title": made.title,
        "parts": [
            {
                "title": part.title,
                "steps": [
                    {
                        "text": step.text,
                        "values": [{"name": name, "value": value} for name, value in step.values],
                        "code": step.code,
                        "needs": step.needs.value if step.needs else None,
                        "file": step.file or None,
                    }
                    for step in part.steps
                ],
            }
            for part in made.parts
        ],
        "files": [{"name": file.name, "media_type": file.media_type, "text": file.text} for file in made.files],
        "notes": list(made.notes),
    }
