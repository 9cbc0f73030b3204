"""`gathering.py`: which files are looked at, and what is said of those that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.app.importing.gathering import MAX_FILE_OCTETS, MAX_FILES, NothingFound, gather
from tests.app.importing.samples import account, token_file

CONFIGURATION = (
    '{"client_id": "33333333-3333-4333-8333-333333333333", "client_secret": "",'
    ' "token_endpoint": "https://login.microsoftonline.com/common/oauth2/v2.0/token"}'
)


def files(kind: str, *paths: Path, given: str | None = None) -> list[str]:
    return [text.file.name for text in gather(paths, given).texts[kind]]


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "emailproxy.config").write_bytes(b"\xef\xbb\xbf" + account().encode())
    gathered = gather([tmp_path / "emailproxy.config"], None)
    assert [each.accounts[0].login for each in gathered.read()] == ["alice@contoso.com"]


def test_a_folder_and_the_files_that_are_named_there(tmp_path: Path) -> None:
    (tmp_path / "sasl-xoauth2.conf").write_text(CONFIGURATION)
    (tmp_path / "postfix").mkdir()
    (tmp_path / "postfix" / "sasl_passwd").write_text(f"[smtp.office365.com]:587 a@b.c:{tmp_path}/elsewhere/a\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text(token_file())
    (tmp_path / "letter.txt").write_text("Dear Alice")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "emailproxy.config").write_text(account())
    gathered = gather([tmp_path], None)
    assert {kind: [text.file.name for text in texts] for kind, texts in gathered.texts.items()} == {
        "sasl-xoauth2": ["sasl-xoauth2.conf", "sasl_passwd", "a"]
    }
    assert gathered.passed_over == []
    assert [account.login for found in gathered.read() for account in found.accounts] == ["a@b.c"]


def test_a_token_file_is_found_beside_its_map(tmp_path: Path) -> None:
    (tmp_path / "sasl_passwd").write_text("[smtp.office365.com]:587 a@b.c:/no/such/folder/mine\n")
    (tmp_path / "mine").write_text(token_file())
    assert files("sasl-xoauth2", tmp_path / "sasl_passwd") == ["sasl_passwd", "mine"]


def test_davmails_token_file_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "davmail.properties").write_text(f"davmail.oauth.tokenFilePath={tmp_path}/tokens\n")
    (tmp_path / "tokens").write_text("a@b.c=token\n")
    assert files("davmail", tmp_path / "davmail.properties") == ["davmail.properties", "tokens"]


def test_the_kind_may_be_told(tmp_path: Path) -> None:
    (tmp_path / "odd").write_text("[notes]\n")
    assert files("email-oauth2-proxy", tmp_path / "odd", given="email-oauth2-proxy") == ["odd"]


def test_a_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "emailproxy.config").write_text(account())
    assert files("email-oauth2-proxy", tmp_path, tmp_path / "emailproxy.config") == ["emailproxy.config"]


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Alice")
    (tmp_path / "large").write_text("x" * (MAX_FILE_OCTETS + 1))
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("letter.txt", "no file of a program"),
        ("missing", "cannot be opened"),
        ("pipe", "not a regular file"),
        ("large", "larger"),
    ):
        with pytest.raises(NothingFound, match=reason):
            gather([tmp_path / name], None)
    (tmp_path / "emailproxy.config").write_text(account())
    gathered = gather([tmp_path / "letter.txt", tmp_path / "emailproxy.config"], None)
    assert [file.name for file, _ in gathered.passed_over] == ["letter.txt"]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NothingFound, match="There is no file of email-oauth2-proxy, sasl-xoauth2, DavMail"):
        gather([tmp_path], None)


def test_a_folder_of_too_many_files(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}").touch()
    with pytest.raises(NothingFound, match=f"more than {MAX_FILES}"):
        gather([tmp_path], None)
