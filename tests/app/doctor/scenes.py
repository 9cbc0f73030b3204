"""Scenes and desks of a test's own. Not a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from proxy.app.answers import DeskError
from proxy.app.doctor.findings import Finding
from proxy.app.doctor.scene import Ask, Place, Scene, survey
from proxy.config.settings import UpstreamTls
from tests.app.home import Home

T = TypeVar("T")

ASLEEP = DeskError("nobody is here")


class FakeDesk:
    """Answers what it was given, by verb; a list is given out one by one. It remembers what it was asked."""

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append((verb, arguments))
        answer = self.answers.get(verb, ASLEEP)
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        made: dict[str, Any] = answer
        return made


def scene_of(
    home: Home,
    login: str | None = None,
    environ: Mapping[str, str] | None = None,
    ask: Ask | None = None,
    about: Mapping[str, Any] | None = None,
) -> Scene:
    """The scene of this home; no daemon runs, unless `about` says so."""
    scene = survey(home.file, environ or {}, login, lambda _: ask or FakeDesk().ask)
    scene.about = about or scene.about
    return scene


def place(
    port: int,
    *,
    host: str = "localhost",
    use: str = "imap",
    tls: UpstreamTls = UpstreamTls.IMPLICIT,
    ca_file: Path | None = None,
    microsoft: bool = False,
) -> Place:
    return Place(host, port, use, tls, ca_file, microsoft, f"upstreams.{use}.ca_file")


def only(things: Iterable[T]) -> T:
    """The one that is there."""
    (thing,) = list(things)
    return thing


def words(finding: Finding) -> str:
    return " ".join((finding.title, finding.cause, finding.remedy, *finding.details))
