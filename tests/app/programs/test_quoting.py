"""Each format's own reader gives back what was meant; where there is none on this machine, one written by its rules."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app.programs import quoting
from proxy.app.programs.quoting import Unquotable
from tests.app.programs.facts import ODD, printable
from tests.clients.berth import installed

VALUES = [
    "alice@contoso.com",
    ODD,
    'a"b',
    '"quoted"',
    "back\\slash",
    "ends with \\",
    "\\",
    "50% %USERNAME% %%",
    "$HOME ${HOME} $(id) `id`",
    "# ; // comment",
    "it's ‘typographic’",
    " blanks at both ends ",
    "Größe 日本 😀",
    "a=b&c;d",
]
FUNCTIONS: dict[str, Callable[[str], str]] = {
    name: getattr(quoting, name)
    for name in ("home_path", "url", "mutt", "mbsync", "fetchmail", "netrc", "msmtp", "registry", "powershell", "prf")
}
FUNCTIONS["comment"] = quoting.comment

by_value = pytest.mark.parametrize("value", VALUES)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("value", ["a\nb", "a\r\nset x=y", "a\0b", "a\x1bb", "a\u2028b", "a\x85b"])
def test_nothing_begins_a_line_of_its_own(function: Callable[[str], str], value: str) -> None:
    with pytest.raises(Unquotable):
        function(value)


@given(printable)
def test_home_path(value: str) -> None:
    quoted = quoting.home_path(value)
    assert quoted.startswith("~/")
    assert shlex.split(quoted[2:]) == [value]


@given(printable)
def test_url(value: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9%._~-]+", quoting.url(value))
    assert unquote(quoting.url(value)) == value


@given(printable)
def test_powershell(value: str) -> None:
    """about_Quoting_Rules: any single quote ends the string; two of them are one of the second."""
    quote = "['\u2018\u2019\u201a\u201b]"
    found = re.fullmatch(f"{quote}((?:[^'\u2018-\u201b]|{quote}{{2}})*){quote}", quoting.powershell(value))
    assert found is not None
    assert re.sub(f"{quote}({quote})", r"\1", found[1]) == value


@given(printable)
def test_registry(value: str) -> None:
    found = re.fullmatch(r'"((?:[^"\\]|\\["\\])*)"', quoting.registry(value))
    assert found is not None
    assert re.sub(r"\\(.)", r"\1", found[1]) == value


@given(st.text())
def test_prf_takes_no_value_that_windows_would_change(value: str) -> None:
    try:
        written = quoting.prf(value)
    except Unquotable:
        assert "%" in value or value != value.strip() or not value.isprintable()
    else:
        assert written == value


@by_value
def test_mutt(value: str, tmp_path: Path) -> None:
    config = _written(tmp_path / "muttrc", f"set imap_user = {quoting.mutt(value)}\n")
    for program in ("mutt", "neomutt"):
        said = _said(tmp_path, program, "-n", "-F", str(config), "-Q", "imap_user")
        read = re.fullmatch(r'(?:set )?imap_user ?= ?"(.*)"\n', said)
        assert read is not None, said
        assert re.sub(r'\\(["\\])', r"\1", read[1]) == value


@by_value
def test_msmtp(value: str, tmp_path: Path) -> None:
    config = _written(
        tmp_path / "msmtprc", f"account default\nhost localhost\nfrom a@b\nauth plain\nuser {quoting.msmtp(value)}\n"
    )
    said = _said(tmp_path, "msmtp", f"--file={config}", "--pretend", "a@b")
    assert re.findall(r"^user = (.*)$", said, re.MULTILINE) == [value]


@by_value
def test_fetchmail(value: str, tmp_path: Path) -> None:
    config = _written(
        tmp_path / "fetchmailrc", f'poll "127.0.0.1" protocol IMAP\n  user {quoting.fetchmail(value)} keep\n'
    )
    said = _said(tmp_path, "fetchmail", "--nosyslog", "-f", str(config), "-V")
    assert re.findall(r"^Options for retrieving from (.*)@127\.0\.0\.1:$", said, re.MULTILINE) == [value]


@by_value
def test_netrc(value: str, tmp_path: Path) -> None:
    """fetchmail finds the password there."""
    if '"' in value:
        with pytest.raises(Unquotable):
            quoting.netrc(value)
        return
    rc = f'poll "127.0.0.1" service 1 protocol IMAP\n  user {quoting.fetchmail(value)} keep sslproto ""\n'
    config = _written(tmp_path / "fetchmailrc", rc)
    _written(tmp_path / ".netrc", f"machine 127.0.0.1 login {quoting.netrc(value)} password found\n")
    said = _said(tmp_path, "fetchmail", "--nosyslog", "-f", str(config), exit_code=2)  # nobody listens on port 1
    assert "can't find a password" not in said


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o600)
    return file


def _said(home: Path, program: str, *arguments: str, exit_code: int = 0) -> str:
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"}
    command = [installed(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, input="", timeout=60, check=False)
    assert done.returncode == exit_code, done.stderr
    return done.stdout + done.stderr
