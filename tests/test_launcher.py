"""The launcher `mailferry`, with a stand-in for Python that makes environments at once and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).parents[1] / "mailferry"
TOOLS = ("sh", "dirname", "readlink", "cat", "find", "id", "rm", "mv", "mkdir", "cp", "chmod", "flock", "env")

PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *version_info*) exit "${OLD:-0}" ;;
    --version) echo "Python 3.9.2" ;;
    *ensurepip*) exit 0 ;;
    "-m venv --clear "*)
        rm -rf "$4"
        mkdir -p "$4/bin"
        cp "$0" "$4/bin/python" ;;
    "-m pip install "*)
        printf '#!/bin/sh\\nfor each; do echo "<$each>"; done\\n' > "${0%python}mailferry"
        chmod 755 "${0%python}mailferry"
        exit "${OFFLINE:-0}" ;;
esac
"""


@dataclass
class House:
    """A folder with the launcher, and a PATH with the stand-in and the few tools that the launcher needs."""

    folder: Path
    tools: Path
    calls: Path

    def run(
        self, *arguments: str, launcher: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [launcher or self.folder / "mailferry", *arguments],
            cwd="/",
            env={"PATH": str(self.tools), "CALLS": str(self.calls), **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def installs(self) -> int:
        return self.calls.read_text().count("-m pip install") if self.calls.exists() else 0


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "a house", tmp_path / "tools", tmp_path / "calls")
    house.folder.mkdir()
    house.tools.mkdir()
    shutil.copy(LAUNCHER, house.folder)
    (house.folder / "pyproject.toml").touch()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (house.tools / tool).symlink_to(found)
    (house.tools / "python3").write_text(PYTHON)
    (house.tools / "python3").chmod(0o755)
    return house


def test_it_installs_once_and_is_quiet_afterwards(house: House) -> None:
    first = house.run("serve")
    assert (first.returncode, first.stdout) == (0, "<serve>\n")
    assert first.stderr.count("\n") == 1
    second = house.run("a b", "", "*")
    assert (second.returncode, second.stdout, second.stderr) == (0, "<a b>\n<>\n<*>\n", "")
    assert house.installs() == 1


def test_it_finds_its_folder_through_links(house: House, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("a house/mailferry")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert house.run("check", launcher=tmp_path / "two").stdout == "<check>\n"
    assert (house.folder / ".venv").is_dir()


def test_a_changed_project_is_installed_anew(house: House) -> None:
    house.run()
    stamp = (house.folder / ".venv" / ".mailferry-installed").stat().st_mtime
    os.utime(house.folder / "pyproject.toml", (stamp + 10, stamp + 10))
    house.run()
    assert house.installs() == 2


def test_a_folder_that_was_moved_is_installed_anew(house: House, tmp_path: Path) -> None:
    house.run()
    house.folder = house.folder.rename(tmp_path / "elsewhere")
    assert house.run("check").stdout == "<check>\n"
    assert house.installs() == 2


def test_an_installation_that_broke_off_does_not_count(house: House) -> None:
    broken = house.run("serve", OFFLINE="1")
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "pip could not install" in broken.stderr
    assert house.run("serve").stdout == "<serve>\n"
    assert house.installs() == 2


def test_an_old_python_is_refused_in_words(house: House) -> None:
    refused = house.run(OLD="1")
    python = house.tools / "python3"
    assert refused.returncode == 1
    assert refused.stderr == f"mailferry: Python 3.11 or newer is needed; {python} is Python 3.9.2\n"
    assert not (house.folder / ".venv").exists()


def test_a_missing_python_is_told_in_words(house: House) -> None:
    (house.tools / "python3").unlink()
    refused = house.run()
    assert refused.returncode == 1
    assert refused.stderr == "mailferry: Python is missing; install python3, 3.11 or newer\n"
