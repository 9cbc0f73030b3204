"""A file or a folder -> the texts in it, sorted by the program that wrote them. Reads; nothing else.

Of a folder its own files are looked at, and those of the folders in which such programs keep tokens. Files that a text
names are fetched too, where they are there. Called by `app/moving_in.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.app.importing.found import Found, Text
from proxy.app.importing.readers import READERS, Reader, reader_of
from proxy.config.files import FileTrouble, read_regular

MAX_FILE_OCTETS = 1 << 20  # emailproxy.config has some 30 KiB as it comes, and 4 KiB more for each account
MAX_FILES = 500  # looked at in one run
SUBFOLDERS = ("tokens", "postfix")
POSTFIX_ROOT = Path("/var/spool/postfix")  # where a chrooted Postfix finds /etc/tokens


class NothingFound(Exception):
    """There is nothing to import; the text says why."""


@dataclass(slots=True)
class Gathered:
    texts: dict[str, list[Text]] = field(default_factory=dict)
    """By the program's `--kind`."""
    passed_over: list[tuple[Path, str]] = field(default_factory=list)
    """Files that were asked for and could not be used, and why."""

    def read(self) -> list[Found]:
        return [READERS[kind].read(texts) for kind, texts in self.texts.items()]


def gather(paths: Sequence[Path], kind: str | None) -> Gathered:
    """All that is there. `kind` is the program whose files they are; None: it shows.

    Raises:
        NothingFound: no file could be used.
    """
    gathered = Gathered()
    seen: set[Path] = set()
    for path in paths:
        for file in _files(path):
            if len(seen) >= MAX_FILES:
                raise NothingFound(f"There are more than {MAX_FILES} files. Name the ones that count.")
            _take(gathered, seen, file, kind, named=file == path)
    if not gathered.texts:
        reasons = "; ".join(f"{file} {why}" for file, why in gathered.passed_over)
        programs = ", ".join(reader.program for reader in READERS.values())
        raise NothingFound(reasons or f"There is no file of {programs}.")
    return gathered


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder in (path, *(path / name for name in SUBFOLDERS)):
        if folder.is_dir():
            yield from sorted(file for file in folder.iterdir() if file.is_file())


def _take(gathered: Gathered, seen: set[Path], file: Path, kind: str | None, *, named: bool) -> None:
    """`named`: by a person, who is told when it cannot be used."""
    if file in seen:
        return
    seen.add(file)
    try:
        text = _text(file)
    except FileTrouble as trouble:
        if named:
            gathered.passed_over.append((file, str(trouble)))
        return
    reader = READERS[kind] if kind else reader_of(text)
    if reader is None or (kind and not named and not reader.recognises(text)):
        if named:
            gathered.passed_over.append((file, "is no file of a program that mailferry can take over from"))
        return
    _lay_down(gathered, reader, text)
    for other in reader.refers_to(text):
        for candidate in (Path(other), POSTFIX_ROOT / other.lstrip("/"), file.parent / Path(other).name):
            if candidate.is_file():
                _fetch(gathered, seen, candidate, reader)
                break


def _fetch(gathered: Gathered, seen: set[Path], file: Path, reader: Reader) -> None:
    """A file that another one names: its reader is known."""
    if file in seen or len(seen) >= MAX_FILES:
        return
    seen.add(file)
    try:
        _lay_down(gathered, reader, _text(file))
    except FileTrouble as trouble:
        gathered.passed_over.append((file, str(trouble)))


def _lay_down(gathered: Gathered, reader: Reader, text: Text) -> None:
    kind = next(kind for kind, each in READERS.items() if each is reader)
    gathered.texts.setdefault(kind, []).append(text)


def _text(file: Path) -> Text:
    """Raises: FileTrouble."""
    content, _ = read_regular(file, MAX_FILE_OCTETS)
    try:
        return Text(file, content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Text(file, content.decode("latin-1"))  # Java's properties, and old Windows files
