"""The harbour's ports."""

from __future__ import annotations

import socket

from proxy.demo.harbour import free_ports


def test_free_ports_can_be_had_on_both_families() -> None:
    ports = free_ports(("imap", "pop3", "smtp"))
    assert list(ports) == ["imap", "pop3", "smtp"]
    assert len(set(ports.values())) == 3
    for port in ports.values():
        socket.create_server(("127.0.0.1", port)).close()
