"""The datagram to systemd; the daemon's own messages are tested in `systemd/test_unit.py`."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from proxy.app.notify import notify


@pytest.fixture(params=["file", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "file" else f"@mailferry-{secrets.token_hex(8)}"


def test_a_message_is_one_datagram(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.settimeout(20)
        notify("RELOADING=1\nMONOTONIC_USEC=17", {"NOTIFY_SOCKET": address})
        assert manager.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=17"


@pytest.mark.parametrize("given", [None, "", "/nowhere/at/all", "@nobody-listens-here", "vsock:2:1", "/" + "x" * 200])
def test_nobody_who_listens_is_no_trouble(given: str | None) -> None:
    notify("READY=1", {} if given is None else {"NOTIFY_SOCKET": given})
