"""The log: one line for an event, as text or JSON, whatever stands in its fields (PRODUCT section 6)."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from proxy import log
from proxy.log import Log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("mailferry")
    before = root.handlers, root.level, ours.level
    yield
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_a_line_of_text(capfd: pytest.CaptureFixture[str]) -> None:
    log.start("info", "text")
    Log("session", session=7).info("login accepted", login="a@b", spaced="a b", none=None, duration_s=0.25, tls=True)
    line = capfd.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line)
    assert line[25:] == 'info    login accepted session=7 login=a@b spaced="a b" duration_s=0.250 tls=true\n'


@pytest.mark.parametrize("value", ['a" b=c', "two\nlines", "", "ä", "x" * 10_000])
def test_no_field_breaks_out_of_its_place(value: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.start("info", "text")
    Log("x").info("event", field=value, next=1)
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    field = re.search(r' event field=("(?:\\.|[^"\\])*"|[^" ]+) next=1$', line)
    assert field is not None
    written = json.loads(field[1]) if field[1].startswith('"') else field[1]
    assert written == value[: log.MAX_FIELD_CHARACTERS]


def test_a_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    log.start("info", "json")
    Log("session", session=7).warning("login refused", login="a\nb", peer=None)
    (line,) = capfd.readouterr().err.splitlines()
    event = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
    assert event == {"level": "warning", "event": "login refused", "session": 7, "login": "a\nb"}


def test_bound_fields_stand_on_every_line_of_their_own_log(capfd: pytest.CaptureFixture[str]) -> None:
    log.start("info", "text")
    outer = Log("x", session=1)
    outer.bind(login="alice").info("inner")
    outer.info("outer")
    inner_line, outer_line = capfd.readouterr().err.splitlines()
    assert inner_line.endswith("inner session=1 login=alice")
    assert outer_line.endswith("outer session=1")


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_unforeseen_error_comes_with_its_traceback(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    log.start("info", "text" if form == "text" else "json")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        Log("x").failure("went wrong", error, session=1)
    said = capfd.readouterr().err
    assert "went wrong" in said
    assert "test_log.py" in said
    assert "ZeroDivisionError" in said


def test_levels_and_the_lines_of_libraries(capfd: pytest.CaptureFixture[str]) -> None:
    log.start("debug", "text")
    Log("x").debug("ours")
    logging.getLogger("library").info("a library's")
    logging.getLogger("library").warning("a library's warning")
    assert [line[33:] for line in capfd.readouterr().err.splitlines()] == ["ours", "a library's warning"]
    log.start("error", "text")
    Log("x").warning("too little")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_in_the_journal_every_line_has_its_priority(
    form: Literal["text", "json"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sd-daemon(3). Where only the variable was inherited, nothing stands before a line."""
    with (tmp_path / "journal").open("w+") as journal, (tmp_path / "file").open("w+") as file:
        facts = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        for stream in (journal, file):
            monkeypatch.setattr("sys.stderr", stream)
            log.start("debug", form)
            for tell in (Log("x").debug, Log("x").info, Log("x").warning, Log("x").error):
                tell("event")
            Log("x").failure("failed", ValueError("two\nlines"))
            stream.seek(0)
        priorities = [line[:3] for line in journal]
        assert priorities[:5] == ["<7>", "<6>", "<4>", "<3>", "<3>"]
        assert set(priorities[5:]) <= {"<3>"}
        assert not any(line.startswith("<") for line in file)


def test_a_commands_error_has_its_priority_in_the_journal_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as journal:
        facts = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        assert log.marked("two\nlines") == "two\nlines"
        monkeypatch.setattr("sys.stderr", journal)
        assert log.marked("two\nlines") == "<3>two\n<3>lines"


def test_a_log_says_everything_aloud_as_long_as_it_shall(capfd: pytest.CaptureFixture[str]) -> None:
    log.start("warning", "text")
    wanted = True
    quiet = Log("session", session=7)
    loud = quiet.aloud(lambda: wanted).bind(login="a@b")
    assert (quiet.debugs, loud.debugs) == (False, True)
    quiet.debug("unheard")
    loud.debug("heard", step=1)
    loud.info("heard too")
    wanted = False
    assert not loud.debugs
    loud.debug("unheard")
    first, second = capfd.readouterr().err.splitlines()
    assert first[25:] == "debug   heard session=7 login=a@b step=1"
    assert second[25:] == "info    heard too session=7 login=a@b"
