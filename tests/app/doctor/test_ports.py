"""Who has the ports: `ports.py`, on this machine's own /proc."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from unittest import mock

import pytest

from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.ports import Program, Socket, _overlap, check_ports, listening, owners_of
from proxy.login import Fault
from tests.app.doctor.scenes import only, scene_of
from tests.app.home import Home
from tests.servers.child import free_port


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_a_listening_socket_is_found_with_its_program(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        found = only(each for each in listening() if each.port == port)
        owner = owners_of({found.inode})[found.inode]
    assert found.address == address
    assert owner == Program(os.getpid(), Path("/proc/self/comm").read_text().strip())
    assert not [each for each in listening() if each.port == port]


def test_a_free_port_and_no_daemon(home: Home) -> None:
    home.write_main(port=free_port())
    assert only(check_ports(scene_of(home))).verdict is Verdict.OK


def test_a_port_that_is_taken_by_somebody_who_is_named(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        home.write_main(port=server.getsockname()[1])
        finding = only(check_ports(scene_of(home)))
    assert (finding.verdict, finding.fault) == (Verdict.FAIL, Fault.MAILFERRY)
    assert f"(process {os.getpid()})" in finding.cause
    assert f"kill {os.getpid()}" in finding.remedy


def test_a_port_that_somebody_has_whom_we_may_not_see(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        home.write_main(port=server.getsockname()[1])
        with mock.patch("proxy.app.doctor.ports.owners_of", return_value={}):
            finding = only(check_ports(scene_of(home)))
    assert "a program of another user" in finding.cause
    assert "ss -ltnp" in finding.details[0]


def test_the_daemons_own_port(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        home.write_main(port=server.getsockname()[1])
        finding = only(check_ports(scene_of(home, about={"pid": os.getpid(), "version": "1"})))
    assert finding.verdict is Verdict.OK
    assert "The daemon listens on" in finding.cause


def test_a_daemon_that_does_not_listen(home: Home) -> None:
    home.write_main(port=free_port())
    finding = only(check_ports(scene_of(home, about={"pid": 1, "version": "1"})))
    assert finding.verdict is Verdict.FAIL
    assert "restart the daemon" in finding.remedy


def test_a_daemon_that_does_not_say_who_it_is(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        home.write_main(port=server.getsockname()[1])
        finding = only(check_ports(scene_of(home, about={"trouble": "old"})))
    assert finding.verdict is Verdict.OK


def test_low_ports_are_for_root(home: Home, tmp_path: Path) -> None:
    home.write_main(port=143)
    first = tmp_path / "sys/net/ipv4"
    first.mkdir(parents=True)
    (first / "ip_unprivileged_port_start").write_text("1024\n")
    with mock.patch("os.geteuid", return_value=1000):
        finding = only(check_ports(scene_of(home), tmp_path))
    assert finding.verdict is Verdict.WARN
    assert "--sockets" in finding.remedy


def test_proc_that_cannot_be_read(home: Home, tmp_path: Path) -> None:
    assert list(listening(tmp_path)) == []
    home.write_main(port=free_port())
    assert only(check_ports(scene_of(home), tmp_path)).verdict is Verdict.OK


def test_kernels_spelling(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    head = "  sl  local_address rem_address   st ...\n"
    tail = "00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
    (tmp_path / "net/tcp").write_text(
        head + f"   0: 0100007F:0477 {tail.format('0A')}\n" + f"   1: 0100007F:0478 {tail.format('01')}\n"
    )
    assert list(listening(tmp_path)) == [Socket("127.0.0.1", 1143, 4711)]


@pytest.mark.parametrize(
    ("wanted", "taken", "collide"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "0.0.0.0", True),
        ("localhost", "10.0.0.1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("::", "10.0.0.1", True),
    ],
)
def test_which_addresses_collide(wanted: str, taken: str, collide: bool) -> None:
    assert _overlap(wanted, taken) is collide


@pytest.mark.parametrize(("others", "holder"), [({7: "python"}, Program(7, "python")), ({}, Program(1, "systemd"))])
def test_a_socket_that_systemd_lends_is_the_borrower_s(tmp_path: Path, others: dict[int, str], holder: Program) -> None:
    for pid, name in ({1: "systemd"} | others).items():
        folder = tmp_path / str(pid) / "fd"
        folder.mkdir(parents=True)
        (folder / "3").symlink_to("socket:[42]")
        (folder.parent / "comm").write_text(f"{name}\n")
    assert owners_of({42}, tmp_path) == {42: holder}
