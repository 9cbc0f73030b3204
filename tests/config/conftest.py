"""A configuration folder of its own for each test, and what reading it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.config import Config, ConfigurationError, Finding, read

GUID = "11111111-1111-4111-8111-111111111111"
HASH = "$scrypt$ln=14,r=8,p=1$jCWIuqt0qKV6OmieWjWtQQ$wWHclK2KrSkbKGsAk03IL5b1Hw+IhzCT6CJ9APmpFOw"


@dataclass
class Folder:
    """A main file, `conf.d/` beside it, and the environment in which they are read."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> Path:
        return self.path / "config.yaml"

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)
        return file

    def config(self, text: str) -> Config:
        """The configuration of this main file, which is sound."""
        return read(self.write("config.yaml", text), self.environ).config

    def findings(self, text: str, mode: int = 0o600) -> list[Finding]:
        """All findings about this main file and conf.d."""
        file = self.write("config.yaml", text, mode)
        try:
            return list(read(file, self.environ).findings)
        except ConfigurationError as error:
            return list(error.findings)

    def finding(self, text: str) -> Finding:
        """The only finding."""
        found = self.findings(text)
        assert len(found) == 1, [str(each) for each in found]
        return found[0]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    home = tmp_path / "home"
    home.mkdir()
    etc = tmp_path / "etc"
    etc.mkdir()
    return Folder(etc, {"HOME": str(home)})
