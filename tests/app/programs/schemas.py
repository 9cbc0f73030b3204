"""Judges XML by a schema of this folder, with libxml2's own program. Not a test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def judge(octets: bytes, schema: str) -> None:
    """It must be what the schema says, and the program must be there: no network is asked."""
    xmllint = shutil.which("xmllint")
    assert xmllint is not None, "xmllint is not installed; run: apt-get install -y libxml2-utils"
    command = [xmllint, "--noout", "--nonet", "--schema", str(HERE / f"{schema}.xsd"), "-"]
    done = subprocess.run(command, input=octets, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
