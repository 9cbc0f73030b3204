"""The last warnings, in memory: `recollection.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from proxy import log as logging
from proxy.app.recollection import MAX_LINE_CHARACTERS, MAX_LINES, Recollection
from proxy.log import Log


@pytest.fixture
def kept() -> Iterator[Recollection]:
    logging.start("info", "text")
    with closing(Recollection()) as made:
        yield made


def test_warnings_and_errors_in_the_logs_own_form(kept: Recollection) -> None:
    log = Log("session")
    log.info("greeted", peer="127.0.0.1")
    log.warning("login refused", login="a@b.c", reason="sign_in_needed")
    log.error("cannot start", reason="two words")
    first, second = kept.lines
    assert first.endswith("warning login refused login=a@b.c reason=sign_in_needed")
    assert second.endswith('error   cannot start reason="two words"')


def test_json_stays_json(kept: Recollection) -> None:
    logging.start("info", "json")
    Log("session").warning("login refused", login="a@b.c")
    assert json.loads(kept.lines[0])["event"] == "login refused"


def test_no_more_than_so_many_and_no_longer(kept: Recollection) -> None:
    for number in range(MAX_LINES + 5):
        Log("x").warning(f"number {number}", **{f"field{at}": "y" * 400 for at in range(5)})
    assert len(kept.lines) == MAX_LINES
    assert "number 5 " in kept.lines[0]
    assert max(map(len, kept.lines)) == MAX_LINE_CHARACTERS


def test_of_a_mistake_only_what_it_is_about(kept: Recollection) -> None:
    try:
        raise RuntimeError("deep down")
    except RuntimeError as error:
        Log("x").failure("it broke", error)
    (line,) = kept.lines
    assert "it broke" in line
    assert "deep down" not in line


def test_it_ends() -> None:
    logging.start("info", "text")
    with closing(Recollection()) as made:
        pass
    Log("x").warning("later")
    assert made.lines == []
