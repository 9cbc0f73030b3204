from __future__ import annotations

import pytest

from proxy.protocols.smtp_extensions import offers_less, read


def test_read_leaves_out_what_we_answer_for_ourselves() -> None:
    lines = ["size 10", "AUTH LOGIN XOAUTH2", "auth=LOGIN", "STARTTLS", "DSN", "X-AUTH a b"]
    assert read(lines) == {"SIZE": "10", "DSN": "", "X-AUTH": "a b"}


@pytest.mark.parametrize(
    ("offered", "announced", "less"),
    [
        (["DSN"], [], False),
        ([], ["DSN"], True),
        (["SIZE 10"], ["SIZE 10"], False),
        (["SIZE 9"], ["SIZE 10"], True),
        (["SIZE 10"], ["SIZE"], True),  # RFC 1870 §4: no number and 0 stand for no limit
        (["SIZE 10"], ["SIZE 0"], True),
        (["SIZE 0"], ["SIZE 10"], False),
        (["SIZE"], ["SIZE 10"], False),
        (["SIZE ten"], ["SIZE 10"], False),
    ],
)
def test_offers_less(offered: list[str], announced: list[str], less: bool) -> None:
    assert offers_less(read(offered), read(announced)) is less
