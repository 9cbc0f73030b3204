"""The certificate on the page."""

from __future__ import annotations

import time

import pytest

from proxy.app.certificates import announcements, note_shown
from proxy.app.programs.trusting import SYSTEMS
from proxy.network.certificates import read_certificate
from tests.app.page.visitor import Served, Visitor
from tests.app.trusted import authorities, give


@pytest.fixture
def page(served: Served, visitor: Visitor) -> Visitor:
    give(served.home, 0)
    note_shown(served.home.config(), time.time())
    return visitor


def test_it_is_shown_with_the_steps_of_each_system(page: Visitor) -> None:
    shown = read_certificate(authorities()[0] / "ca.pem")
    reply = page.get("/certificate")
    assert shown.sha256 in reply.words
    assert shown.sha1 in reply.words
    assert all(system.title in reply.words for system in SYSTEMS)
    assert "imap localhost:1143" in reply.words
    assert "It changed" not in reply.words


def test_the_download(page: Visitor) -> None:
    reply = page.get("/certificate/mailferry-ca.crt")
    assert reply.text == (authorities()[0] / "ca.pem").read_text()
    assert reply.header("content-type") == "application/x-x509-ca-cert"
    assert 'filename="mailferry-ca.crt"' in reply.header("content-disposition")


def test_a_change_is_announced_until_it_was_read(page: Visitor, served: Served) -> None:
    give(served.home, 1)
    note_shown(served.home.config(), time.time())
    reply = page.get("/certificate")
    for which in (0, 1):
        assert read_certificate(authorities()[which] / "ca.pem").sha256 in reply.words
    assert "It changed" in reply.words
    reply = page.submit("/certificate/acknowledge")
    assert "Noted." in reply.words
    assert "It changed" not in reply.words
    assert announcements(served.home.config(), time.time()) == []


def test_a_change_is_not_noted_without_the_token(page: Visitor) -> None:
    page.csrf = "wrong"
    assert page.post("/certificate/acknowledge").status == 403


def test_before_there_is_one(visitor: Visitor) -> None:
    assert "no certificate of mailferry's own" in visitor.get("/certificate").words
    assert visitor.get("/certificate/mailferry-ca.crt").status == 404


def test_a_stranger_gets_nothing(page: Visitor) -> None:
    assert Visitor(page.port).get("/certificate/mailferry-ca.crt").status == 403
