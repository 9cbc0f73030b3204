"""How each system trusts the authority."""

from __future__ import annotations

import pytest

from proxy.app.programs.guide import Needs
from proxy.app.programs.trusting import FILE, SYSTEMS, System, find_system


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_file_comes_first(system: System) -> None:
    (part,) = system.guide().parts
    assert part.steps[0].needs is Needs.CERTIFICATE
    assert len(part.steps) > 1
    assert all(FILE in step.code for step in part.steps if step.code)


def test_systems_by_their_names_and_others() -> None:
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)
    assert {find_system(name) for name in ("firefox", "thunderbird")} == {find_system("thunderbird")}
    assert find_system("ubuntu") == find_system("debian")
    assert find_system("os/2") is None
