"""`systemd/install`, `credentials`, `uninstall`: for real, below a folder; and dry, which does nothing."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.systemd.conftest import SYSTEMD, install

pytestmark = pytest.mark.timeout(600)


def run(script: str, *arguments: str | Path, exit_code: int = 0) -> str:
    done = subprocess.run([SYSTEMD / script, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, its mode and when it was changed."""
    return {
        str(file.relative_to(folder)): (file.lstat().st_mode, file.lstat().st_mtime_ns) for file in folder.rglob("*")
    }


def mode(file: Path) -> int:
    return stat.S_IMODE(file.lstat().st_mode)


def test_an_installation_below_a_folder(installed: Path) -> None:
    done = subprocess.run(
        [installed / "opt/mailferry/bin/python", "-I", "-m", "proxy", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("mailferry ")
    units = installed / "etc/systemd/system"
    assert {file.name for file in units.glob("mailferry*")} == {"mailferry.service", "mailferry.socket"}
    assert (installed / "etc/systemd/user/mailferry.service").is_file()
    assert os.access(installed / "usr/local/bin/mailferry", os.X_OK)
    assert (installed / "etc/fail2ban/filter.d/mailferry.conf").is_file()
    config = installed / "etc/mailferry/config.yaml"
    assert "listeners:" in config.read_text(), "the links hold below the folder too"
    assert mode(config.resolve()) == 0o600
    assert [mode(installed / f"var/lib/private{name}") for name in ("", "/mailferry", "/mailferry/config")] == [
        0o700
    ] * 3
    foreign = [file for file in (installed / "opt/mailferry").rglob("*") if file.lstat().st_mode & 0o022]
    assert [file for file in foreign if not file.is_symlink()] == [], "nobody else can write the program"


def test_again_it_is_the_same_and_what_is_yours_stays(installed: Path) -> None:
    config = installed / "etc/mailferry/config.yaml"
    jail = installed / "etc/fail2ban/jail.d/mailferry.conf"
    own = installed / "etc/systemd/system/mailferry.service.d/own.conf"
    kept = {file: file.read_text() if file.exists() else "" for file in (config, jail)}
    own.parent.mkdir()
    own.write_text("[Service]\nMemoryMax=1G\n")
    config.write_text(kept[config] + "# mine\n")
    jail.write_text("# mine\n")
    before = set(tree(installed))
    install(installed)
    assert set(tree(installed)) == before
    assert config.read_text().endswith("# mine\n")
    assert jail.read_text() == "# mine\n"
    assert own.exists()
    config.write_text(kept[config])
    jail.write_text(kept[jail])
    own.unlink()
    own.parent.rmdir()


def test_a_dry_run_changes_nothing(installed: Path, tmp_path: Path) -> None:
    for root in (installed, tmp_path / "empty"):
        before = tree(root)
        told = install(root, "--dry-run")
        assert tree(root) == before
        assert f"+ mv {root}/opt/mailferry.new {root}/opt/mailferry" in told
        assert told.endswith("install: nothing was changed\n")
        assert run("uninstall", "--dry-run", "--purge", "--root", root).endswith("uninstall: nothing was changed\n")
        assert tree(root) == before


def test_a_dry_run_of_the_real_thing() -> None:
    """Without `--root`, as the README has it."""
    told = run("install", "--dry-run", "--sockets")
    assert "+ mv /opt/mailferry.new /opt/mailferry" in told
    assert "+ install -m 0755" in told
    assert told.endswith("install: nothing was changed\n")
    run("credentials", "--dry-run")
    run("uninstall", "--dry-run")


def test_a_folder_of_an_older_installation_is_not_touched(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "etc/mailferry").mkdir(parents=True)
    (tmp_path / "etc/mailferry/config.yaml").write_text("mine")
    said = run("install", "--dry-run", "--root", tmp_path, exit_code=1)
    assert "is a folder; move what is in it to" in said
    assert (tmp_path / "etc/mailferry/config.yaml").read_text() == "mine"


def test_credentials_are_those_that_are_there(tmp_path: Path) -> None:
    drop_in = tmp_path / "etc/systemd/system/mailferry.service.d/credentials.conf"
    for folder, name in (
        ("credstore", "mailferry.key"),
        ("credstore", "other"),
        ("credstore.encrypted", "mailferry.s"),
    ):
        (tmp_path / "etc" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc" / folder / name).write_text("x")
    run("credentials", "--dry-run", "--root", tmp_path)
    assert not drop_in.exists()
    run("credentials", "--root", tmp_path)
    assert drop_in.read_text().splitlines()[1:] == [
        "[Service]",
        "LoadCredential=mailferry.key:/etc/credstore/mailferry.key",
        "LoadCredentialEncrypted=mailferry.s:/etc/credstore.encrypted/mailferry.s",
    ]
    for file in (tmp_path / "etc").glob("credstore*/mailferry.*"):
        file.unlink()
    run("credentials", "--root", tmp_path)
    assert not drop_in.exists()


def test_uninstalling_keeps_what_is_yours_unless_it_shall_not(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", installed, root], check=True)
    state = root / "var/lib/private/mailferry"
    said = run("uninstall", "--root", root)
    assert "configuration and state stay" in said
    assert [file for file in root.rglob("*mailferry*") if state not in (file, *file.parents)] == [
        *filter(os.path.lexists, (root / "etc/mailferry", root / "var/lib/mailferry"))
    ]
    assert (state / "config/config.yaml").exists()
    run("uninstall", "--root", root)
    run("uninstall", "--root", root, "--purge")
    assert list(root.rglob("*mailferry*")) == []


def test_what_they_do_not_know_is_refused() -> None:
    for script in ("install", "credentials", "uninstall"):
        assert "unknown option --force" in run(script, "--force", exit_code=2)


def test_the_scripts_are_sound() -> None:
    for script in ("install", "credentials", "uninstall"):
        subprocess.run(["bash", "-n", SYSTEMD / script], check=True, timeout=60)
    subprocess.run(["sh", "-n", SYSTEMD / "command"], check=True, timeout=60)
