"""The verb `ca`: the local certificate authority, its export, how to trust it, and whether it changed."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from proxy.app.answers import DeskError
from proxy.app.certificates import (
    acknowledge,
    announcements,
    authority_file,
    folder,
    presented,
    uses_authority,
)
from proxy.app.programs.guide import Needs, as_text
from proxy.app.programs.trusting import FILE, SYSTEMS, find_system
from proxy.app.verbs.lookup import find_config
from proxy.app.verbs.terminal import UsageError
from proxy.config import Config
from proxy.network.certificates import Shown, read_certificate


def ca(options: Namespace) -> int:
    """Print it; or export it, say the steps for a system, or note that a change was read."""
    config = find_config(options)
    if options.acknowledge:
        return _acknowledge(config)
    if options.steps:
        return _steps(options.steps)
    if options.output:
        return _export(config, Path(options.output))
    if options.json:
        print(json.dumps(_document(config), indent=2))
        return 0
    _print(config)
    return 0


def _print(config: Config) -> None:
    for change in announcements(config, time.time()):
        print(f"CHANGED: {change}\n  old  {change.old}\n  new  {change.new}\n")
    if uses_authority(config):
        file, shown = _read(config)
        print(f"The local certificate authority, which mail programs are told to trust: {shown.name}")
        print(f"  file     {file}")
        print(f"  SHA-256  {shown.sha256}")
        print(f"  SHA-1    {shown.sha1}      (as Windows shows it)")
        print(f"  expires  {shown.expires.date()}\n")
    for each in presented(config):
        names = ", ".join(each.certificate.names) or each.certificate.name
        print(f"{each.listener} shows {'a certificate of it' if each.ours else str(each.file)}")
        print(f"  for      {names}\n  SHA-256  {each.certificate.sha256}\n  expires  {each.certificate.expires.date()}")
    print("\nA copy for mail programs:  mailferry ca --output mailferry-ca.crt")
    print(f"How to trust it:           mailferry ca --steps {'|'.join(each.name for each in SYSTEMS)}")
    if announcements(config, time.time()):
        print("All programs are told:     mailferry ca --acknowledge")


def _export(config: Config, target: Path) -> int:
    file, shown = _read(config)
    try:
        target.write_bytes(file.read_bytes())  # public, and for everybody on this machine: no private mode
    except OSError as error:
        raise DeskError(f"{target} cannot be written: {(error.strerror or str(error)).lower()}.") from None
    print(f"Written: {target}, the certificate of {shown.name}")
    print(f"Compare where you install it: SHA-256 {shown.sha256}")
    print(f"How to trust it: mailferry ca --steps {'|'.join(each.name for each in SYSTEMS)}")
    return 0


def _steps(name: str) -> int:
    system = find_system(name)
    if system is None:
        raise UsageError(f"Nothing is known of {name!r}. These are: {', '.join(each.name for each in SYSTEMS)}.")
    ways = {Needs.CERTIFICATE: f"mailferry ca --output {FILE}"}
    print(as_text(system.guide(), lambda needs: ways[needs], lambda file: file.name), end="")
    return 0


def _acknowledge(config: Config) -> int:
    try:
        changes = announcements(config, time.time())
        acknowledge(config)
    except OSError as error:
        raise DeskError(f"It cannot be noted in {folder(config)}: {(error.strerror or str(error)).lower()}.") from None
    print("Noted: it is not announced any more." if changes else "Nothing has changed.")
    return 0


def _read(config: Config) -> tuple[Path, Shown]:
    """Raises: DeskError: there is none, or it cannot be read; the text says what to do."""
    file = authority_file(config)
    if not uses_authority(config):
        raise DeskError(
            "No listener shows a certificate of the local authority: each has one of its own, or no TLS. There is "
            "nothing to install."
        )
    try:
        return file, read_certificate(file)
    except FileNotFoundError:
        raise DeskError(
            f"{file} is not there yet: it is made when the daemon first starts (mailferry serve)."
        ) from None
    except PermissionError:
        raise DeskError(f"{file} may not be read by you: run this as root, or as the user of the daemon.") from None
    except (OSError, ValueError) as error:
        raise DeskError(f"{file} cannot be read: {error}. Restart the daemon: it makes a new one.") from None


def _document(config: Config) -> dict[str, Any]:
    authority = None
    if uses_authority(config):
        file, shown = _read(config)
        authority = {"file": str(file), **_plain(shown)}
    return {
        "authority": authority,
        "listeners": [
            {
                "listener": each.listener,
                "file": str(each.file),
                "local_authority": each.ours,
                **_plain(each.certificate),
            }
            for each in presented(config)
        ],
        "changes": [
            {"what": each.what, "old": each.old, "new": each.new, "at": each.at_s}
            for each in announcements(config, time.time())
        ],
    }


def _plain(shown: Shown) -> dict[str, Any]:
    return {
        "name": shown.name,
        "names": list(shown.names),
        "sha256": shown.sha256,
        "sha1": shown.sha1,
        "expires": shown.expires.isoformat(),
    }
