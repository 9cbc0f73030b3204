from __future__ import annotations

import os

import pytest

from proxy.config.settings import KeySource, Secret
from tests.config.conftest import GUID, Folder


def app(source: str) -> str:
    return f"apps:\n  work:\n    application_id: {GUID}\n    client_secret: {source}\n"


def told(folder: Folder, text: str) -> tuple[int, str, str]:
    finding = folder.finding(text)
    assert finding.severity == "error"
    assert "hunter2" not in str(finding)
    return finding.line, finding.key, finding.problem


def secret(folder: Folder, source: str) -> Secret | None:
    return folder.config(app(source)).apps["work"].client_secret


def test_a_secret_comes_from_a_value_a_file_the_environment_or_systemd(folder: Folder) -> None:
    folder.write("secrets/one", "Q~file\n")
    credentials = folder.write("credentials/app", "Q~credential", 0o444).parent
    folder.environ |= {"APP_SECRET": "Q~env", "CREDENTIALS_DIRECTORY": str(credentials)}
    assert secret(folder, "Q~value") == Secret("Q~value")
    assert secret(folder, "{file: secrets/one}") == Secret("Q~file")
    assert secret(folder, f"{{file: {folder.path}/secrets/one}}") == Secret("Q~file")
    assert secret(folder, "{env: APP_SECRET}") == Secret("Q~env")
    assert secret(folder, "{credential: app}") == Secret("Q~credential")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o620])
def test_a_secret_file_that_others_can_use(folder: Folder, mode: int) -> None:
    file = folder.write("secret", "hunter2", mode)
    problem = f"{file} is not private: others on this machine can read or change it (mode {mode:04o})"
    assert told(folder, app("{file: secret}")) == (4, "apps.work.client_secret", problem)


def test_a_secret_in_a_main_file_that_others_can_read(folder: Folder) -> None:
    [finding] = folder.findings(app("hunter2"), 0o644)
    assert (finding.severity, finding.line, finding.key) == ("error", 4, "apps.work.client_secret")
    assert finding.problem.startswith("a secret stands in this file, and others on this machine")
    assert finding.remedy == f"chmod 600 {folder.main}"
    assert folder.findings(app("{env: X}"), 0o644)[0].problem == "the environment variable 'X' is not set"


def test_a_secret_in_a_file_of_conf_d_that_others_can_read(folder: Folder) -> None:
    file = folder.write("conf.d/app-work.yaml", app("hunter2"), 0o644)
    [finding] = folder.findings("")
    assert (finding.file, finding.line, finding.key) == (file, 4, "apps.work.client_secret")
    file.chmod(0o600)
    assert folder.findings("") == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{}", "names no source"),
        ("{file: a, env: B}", "names more than one source"),
        ("{env: NOWHERE}", "the environment variable 'NOWHERE' is not set"),
        ("{env: EMPTY}", "the secret there is empty or more than a line of text"),
        ("{credential: app}", "there are no credentials: $CREDENTIALS_DIRECTORY is not set"),
        ("{credential: ../app}", "'../app' is not a credential's name"),
        ("{file: two}", "the secret there is empty or more than a line of text"),
        ("[hunter2]", "is a list"),
    ],
)
def test_sources_that_give_no_secret(folder: Folder, source: str, problem: str) -> None:
    folder.environ["EMPTY"] = ""
    folder.write("two", "hunter2\nhunter2\n")
    assert told(folder, app(source))[::2] == (4, problem)


def test_files_that_give_no_secret(folder: Folder) -> None:
    key = "apps.work.client_secret"
    missing = folder.path / "none"
    assert told(folder, app("{file: none}")) == (4, key, f"{missing} cannot be opened: no such file or directory")
    (folder.path / "binary").write_bytes(b"\xff\xfehunter2")
    assert told(folder, app("{file: binary}")) == (4, key, f"{folder.path / 'binary'} does not hold text")
    os.mkfifo(folder.path / "pipe", 0o600)
    assert told(folder, app("{file: pipe}")) == (4, key, f"{folder.path / 'pipe'} is not a regular file")


def test_a_credential_that_systemd_did_not_hand_over(folder: Folder) -> None:
    folder.environ["CREDENTIALS_DIRECTORY"] = str(folder.path)
    problem = "systemd handed over no credential 'app'"
    assert told(folder, app("{credential: app}")) == (4, "apps.work.client_secret", problem)


def test_where_the_key_is(folder: Folder) -> None:
    state = folder.path / "state"
    state.mkdir()
    text = f"state_dir: {state}\n"
    own = KeySource(state / "mailferry.key", created=True)
    assert folder.config(text).key == own
    (state / "mailferry.key").touch(0o600)
    assert folder.config(text).key == own
    folder.environ["CREDENTIALS_DIRECTORY"] = str(folder.path / "credentials")
    assert folder.config(text).key == own
    handed = folder.write("credentials/mailferry.key", "", 0o444)
    assert folder.config(text).key == KeySource(handed, created=False)
    other = folder.write("credentials/other", "", 0o444)
    assert folder.config(text + "key: {credential: other}\n").key == KeySource(other, created=False)
    file = folder.write("k", "")
    assert folder.config(text + "key: {file: k}\n").key == KeySource(file, created=False)
    assert folder.config(text + "key: {file: k, keyring: false}\n").key == KeySource(file, created=False)
    in_keyring = KeySource(own.file, created=True, keyring=True)
    assert folder.config(text + "key: {keyring: true}\n").key == in_keyring


def test_keys_that_cannot_be_used(folder: Folder) -> None:
    missing = folder.path / "none"
    problem = f"{missing} cannot be used: no such file or directory"
    assert told(folder, "key: {file: none}\n") == (1, "key", problem)
    assert told(folder, "key: {file: .}\n") == (1, "key", f"{folder.path} is not a regular file")
    assert told(folder, "key: [x]\n") == (1, "key", "is a list")
    assert told(folder, "hostname: x\nkey: {keyring: false}\n") == (2, "key", "names no source")
    assert told(folder, "key: {keyring: true, file: a}\n") == (1, "key", "names more than one source")
    assert told(folder, "key: {keyring: maybe}\n")[1] == "key.keyring"
    assert told(folder, "key: {file: a, credential: b}\n") == (1, "key", "names more than one source")
    file = folder.write("k", "", 0o640 if os.geteuid() else 0o644)
    assert told(folder, "key: {file: k}\n")[2].startswith(f"{file} is not private: ")


def test_our_own_key_when_others_can_read_it(folder: Folder) -> None:
    file = folder.write("state/mailferry.key", "", 0o644)
    assert told(folder, "state_dir: state\n")[2].startswith(f"{file} is not private: ")
