"""The verb `page`, and what a start says: opening.py."""

from __future__ import annotations

import json
import re
import sys
import webbrowser

import pytest

from proxy.app.verbs import opening
from tests.app.home import Beside, Home
from tests.app.page.visitor import Served, Visitor


@pytest.fixture
def served(home: Home, beside: Beside) -> Served:
    return Served(home, beside)


def test_a_link_that_opens_the_page(served: Served, home: Home) -> None:
    told = home.run("page")
    links = re.findall(r"^    (http://localhost:\d+/open/\S+)$", told.output, re.MULTILINE)
    assert len(links) == 1
    assert "once" in told.output
    assert "From nothing to connected" in Visitor(served.port).enter(links[0]).words
    other = json.loads(home.run("page", "--json").output)["address"]
    assert other != links[0]
    served.close()


def test_the_browser_opens(served: Served, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_it(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_it)
    told = home.run("page", "--open")
    assert opened[0] in told.output
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert "open the link yourself" in home.run("page", "--open", exit_code=1).errors
    served.close()


def test_without_a_daemon_there_is_no_page(home: Home) -> None:
    assert "mailferry serve" in home.run("page", exit_code=4).errors


def test_a_page_that_is_off(home: Home, beside: Beside) -> None:
    assert "The page is off" in home.run("page", exit_code=1).errors


def test_who_sees_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert opening.sees_a_person(first_start=True)
    assert not opening.sees_a_person(first_start=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert opening.sees_a_person(first_start=False)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert not opening.sees_a_person(first_start=True), "the journal is read by others"


def test_a_greeting(capsys: pytest.CaptureFixture[str]) -> None:
    opening.greet("http://localhost:8143/open/x")
    said = capsys.readouterr()
    assert "    http://localhost:8143/open/x\n" in said.err
    assert said.out == ""
