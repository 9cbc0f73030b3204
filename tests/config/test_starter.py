from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config import ConfigurationError, create_starter, locate, read, starter
from tests.config.conftest import Folder


@pytest.fixture(autouse=True)
def system(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's file, for this test alone."""
    file = folder.path / "mailferry/config.yaml"
    monkeypatch.setattr(starter, "SYSTEM_FILE", file)
    return file


def own(folder: Folder) -> Path:
    return Path(folder.environ["HOME"], ".config/mailferry/config.yaml")


def test_the_order_in_which_files_are_looked_for(folder: Folder, system: Path) -> None:
    assert locate(None, folder.environ) is None
    system.parent.mkdir()
    system.touch()
    assert locate(None, folder.environ) == system
    own(folder).parent.mkdir(parents=True)
    own(folder).touch()
    assert locate(None, folder.environ) == own(folder)
    environ = {**folder.environ, "MAILFERRY_CONFIG": "/missing.yaml"}
    assert locate(None, environ) == Path("/missing.yaml")
    assert locate(Path("given.yaml"), environ) == Path("given.yaml")
    assert locate(None, {}) == system


def test_the_starter_is_private_and_loads(folder: Folder) -> None:
    file = create_starter(folder.environ)
    assert file == own(folder)
    assert file.stat().st_mode & 0o7777 == 0o600
    assert file.parent.stat().st_mode & 0o7777 == 0o700
    loaded = read(file, folder.environ)
    assert loaded.findings == ()
    defaults = read(None, folder.environ).config
    assert (loaded.config.listeners, loaded.config.page) == (defaults.listeners, defaults.page)
    assert loaded.config.accounts == ()
    assert locate(None, folder.environ) == file


def test_the_next_place_is_taken_when_the_first_cannot_be_written(folder: Folder, system: Path) -> None:
    Path(folder.environ["HOME"], ".config").write_text("no folder")
    assert create_starter(folder.environ) == system
    system.unlink()
    assert create_starter({}) == system


def test_a_file_that_is_there_is_never_overwritten(folder: Folder, system: Path) -> None:
    own(folder).parent.mkdir(parents=True)
    own(folder).symlink_to("nowhere")
    assert create_starter(folder.environ) == system
    assert os.readlink(own(folder)) == "nowhere"
    system.write_text("mine")
    with pytest.raises(ConfigurationError) as raised:
        create_starter(folder.environ)
    [finding] = raised.value.findings
    assert finding.problem == (
        f"no configuration could be made ({own(folder)}: it is there already; {system}: it is there already)"
    )
    assert system.read_text() == "mine"
