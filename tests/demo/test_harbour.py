"""The harbour's parts that need no daemon; the whole is in `test_journey.py`."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.config import read
from proxy.demo.departure import Departure
from proxy.demo.harbour import Harbour, free_ports

NAMES = ("imap", "pop3", "smtp")


def test_free_ports_are_free_on_both_families() -> None:
    ports = free_ports(NAMES)
    assert tuple(ports) == NAMES
    for port in ports.values():
        with socket.create_server(("127.0.0.1", port)), socket.create_server(("::1", port), family=socket.AF_INET6):
            pass


def test_its_configuration_is_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Departure() as departure, Harbour(departure) as harbour:
        harbour.open_sign_in_service()
        harbour.open_mailbox()
        harbour.write_configuration()
        loaded = read(harbour.config_file, {})
        assert loaded.findings == ()
        ports: dict[str, int] = {each.protocol: each.port for each in loaded.config.listeners}
        assert loaded.config.page is not None
        assert {**ports, "page": loaded.config.page[1]} == harbour.ports
        assert harbour.folder in loaded.config.state_dir.parents
    assert list(tmp_path.iterdir()) == []


def test_its_letter_is_as_the_wire_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Departure() as departure, Harbour(departure) as harbour:
        harbour.open_sign_in_service()
        harbour.open_mailbox()
        harbour.write_configuration()
        letter = harbour.letter_file.read_bytes()
    assert letter.startswith(b"From: alice@practice.example\r\n")
    assert letter.count(b"\n") == letter.count(b"\r\n")
