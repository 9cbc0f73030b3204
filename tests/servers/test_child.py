"""`child.py`: a port is given once, and to one worker only."""

from __future__ import annotations

import itertools
import socket

import pytest

from tests.servers import child


def ports(monkeypatch: pytest.MonkeyPatch, worker: int, count: int) -> set[int]:
    """The share of this worker, once round."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", str(count))
    share = len(child.PORTS) // count
    taken = list(itertools.islice(child._own_ports(), share))
    assert len(set(taken)) == share, "none twice"
    return set(taken)


def test_workers_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ports(monkeypatch, 0, 2).isdisjoint(ports(monkeypatch, 1, 2))
    assert ports(monkeypatch, 0, 1) == set(child.PORTS)


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = child.free_port()
        monkeypatch.setattr(child, "_ports", iter([taken.getsockname()[1], free]))
        assert child.free_port() == free
