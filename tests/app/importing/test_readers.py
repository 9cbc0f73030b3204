"""`readers.py`: a file belongs to the program that wrote it, and to no other."""

from __future__ import annotations

import pytest

from proxy.app.importing.readers import READERS, reader_of
from tests.app.importing.samples import account, options, text, token_file

FILES = {
    "email-oauth2-proxy": account() + options(),
    "sasl-xoauth2": token_file(),
    "davmail": "davmail.imapPort=1143\n",
}


@pytest.mark.parametrize("kind", READERS)
def test_each_knows_its_own(kind: str) -> None:
    assert [each for each, reader in READERS.items() if reader.recognises(text(FILES[kind]))] == [kind]
    assert reader_of(text(FILES[kind])) is READERS[kind]
    assert READERS[kind].read([text(FILES[kind])]).program == READERS[kind].program


def test_a_strangers_file_is_nobodys() -> None:
    assert reader_of(text("Dear Alice,\nhow are you?\n")) is None
