"""What `tests/conftest.py` promises: in CI a skipped test fails; workers share the tests by files and folders."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RULE = Path(__file__).with_name("conftest.py")
SUITES = {
    "skip": "import pytest\n@pytest.mark.skip(reason='too slow')\ndef test_it(): pass\n",
    "skip within": "import pytest\ndef test_it(): pytest.skip('too slow')\n",
    "skip a module": "import pytest\npytest.skip('too slow', allow_module_level=True)\n",
    "xfail": "import pytest\n@pytest.mark.xfail(reason='too slow')\ndef test_it(): assert False\n",
    "xpass": "import pytest\n@pytest.mark.xfail(reason='too slow')\ndef test_it(): pass\n",
}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest in a folder that has our rules."""
    (folder / "conftest.py").write_text(RULE.read_text())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST_"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        *arguments,
        str(folder),
    ]
    return subprocess.run(
        command, cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("ci", [True, False])
def test_a_skipped_test_fails_in_ci_alone(suite: str, ci: bool, tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(SUITES[suite] + "def test_other(): pass\n")
    done = run(tmp_path, **({"CI": "true"} if ci else {}))
    failed = re.search(r"\b1 (failed|error)\b", done.stdout)
    assert bool(failed) is ci, done.stdout
    assert ("too slow" in done.stdout and done.returncode != 0) or not ci, done.stdout


WHO = """
import os, pathlib, time, pytest
@pytest.mark.parametrize("number", range(4))
def test_it(number):
    with pathlib.Path({seen!r}).open("a") as seen:
        seen.write(f"{name} {{os.environ['PYTEST_XDIST_WORKER']}}\\n")
    time.sleep(0.05)
"""


def test_two_workers_share_the_tests_by_files_and_folders(tmp_path: Path) -> None:
    suite, seen = tmp_path / "suite", tmp_path / "seen"
    for name in ("app/test_a", "app/test_b", "clients/test_c", "clients/test_d", "clients/test_e", "end_to_end/test_f"):
        file = (suite / name).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(WHO.format(seen=str(seen), name=name))
    done = run(suite, "--numprocesses", "2", "--dist", "loadfile", "--import-mode=importlib")
    assert done.returncode == 0, done.stdout + done.stderr
    workers: dict[str, set[str]] = {}
    for name, worker in map(str.split, seen.read_text().splitlines()):
        workers.setdefault(name, set()).add(worker)
    assert {name for name, own in workers.items() if len(own) != 1} == set()
    folder = set.union(*(own for name, own in workers.items() if name.startswith("clients/")))
    assert len(folder) == 1
    assert len(set.union(*workers.values())) == 2
    assert workers["end_to_end/test_f"].isdisjoint(folder), "the longest ones begin at once"


def test_a_test_finds_the_log_as_it_was_before_another(tmp_path: Path) -> None:
    (tmp_path / "test_log.py").write_text(
        "import logging\n"
        "def test_one():\n"
        "    logging.getLogger('mailferry').setLevel('ERROR')\n"
        "    logging.getLogger().handlers = []\n"
        "def test_two():\n"
        "    assert logging.getLogger('mailferry').level == logging.NOTSET\n"
        "    assert logging.getLogger().handlers\n"
    )
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
