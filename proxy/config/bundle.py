"""GROUND: the files of `conf.d/` as a whole: their texts for a backup, and a backup's texts put back.

They are judged together, by reading the configuration as it would be; where it would not load, none is written. Each is
written atomically, apps first, since accounts name them: a stop in between leaves a configuration that loads, and
putting them back again does the rest. Called by `app/keeping.py`, whose daemon reloads afterwards. What it is not:
able to change what stands in a file (`conf_d.py`), and the main file is never touched.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.config.files import make_folder, open_folder, reason, write_atomically
from proxy.config.findings import ConfigurationError, Report, refusal
from proxy.config.read import Source, gather, interpret

_FOLDER_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Placed:
    """Names of files: written, or as they were already, or kept as they are here."""

    written: tuple[str, ...]
    same: tuple[str, ...]
    kept: tuple[str, ...]
    """They differ here; `written` too when that was asked for."""


def read_files(config_file: Path | None) -> dict[str, str]:
    """The texts of conf.d beside this main file, by name. Raises: ConfigurationError: one cannot be read."""
    report = Report()
    sources = gather(config_file, report)
    if report.errors:
        raise ConfigurationError(report.findings)
    return {source.file.name: source.text for source in sources if source.file != config_file}


def put_files(
    config_file: Path, files: Mapping[str, str], environ: Mapping[str, str], *, replace: bool, rehearse: bool
) -> Placed:
    """Write these files into conf.d; one that is there and differs is kept, unless `replace`.

    `rehearse` writes nothing, and tells the same.

    Raises:
        ConfigurationError: the configuration would not load, and nothing was written; or a file cannot be written.
    """
    folder = config_file.parent / "conf.d"
    if not all(_is_plain(name) for name in files):
        raise refusal(folder, "the backup holds a file of a strange name", "restore it without --configuration")
    try:
        make_folder(folder, _FOLDER_MODE)
        with open_folder(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # as conf_d.py does for each change
            here = read_files(config_file)
            same = tuple(name for name in files if here.get(name) == files[name])
            kept = tuple(name for name in files if name in here and name not in same)
            chosen = [name for name in files if name not in same and (replace or name not in kept)]
            chosen.sort(key=lambda name: (not name.startswith("app-"), name))
            _judge(config_file, {**here, **{name: files[name] for name in chosen}}, environ)
            for name in chosen if not rehearse else ():
                write_atomically(folder, name, files[name])
    except OSError as error:
        remedy = "let mailferry write this folder, which must be no symbolic link"
        raise refusal(folder, f"cannot be changed: {reason(error)}", remedy) from error
    return Placed(tuple(chosen), same, kept)


def _judge(config_file: Path, files: Mapping[str, str], environ: Mapping[str, str]) -> None:
    main, *_ = gather(config_file, Report())
    others = [Source(config_file.parent / "conf.d" / name, files[name], None) for name in sorted(files)]
    interpret(config_file, [main, *others], environ, Report())


def _is_plain(name: str) -> bool:
    return name.endswith(".yaml") and not name.startswith(".") and "/" not in name and name.isprintable()
