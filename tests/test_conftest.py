"""What `tests/conftest.py` promises: in CI a skipped test fails."""

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


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("ci", [True, False])
def test_a_skipped_test_fails_in_ci_alone(suite: str, ci: bool, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(RULE.read_text())
    (tmp_path / "test_one.py").write_text(SUITES[suite] + "def test_other(): pass\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={**environment, "CI": "true"} if ci else environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    failed = re.search(r"\b1 (failed|error)\b", done.stdout)
    assert bool(failed) is ci, done.stdout
    assert ("too slow" in done.stdout and done.returncode != 0) or not ci, done.stdout
