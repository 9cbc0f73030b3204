"""What a machine lacks in tests: descriptors, and far ends that answer."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

FILLERS = 4  # Linux queues one connection more than the backlog, which is 0; the rest is to be sure


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing more can be opened; what is open stays so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def silence(address: str, port: int) -> Iterator[None]:
    """An address that does not answer: its queue is full, so that the kernel drops whoever knocks."""
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        stack.enter_context(socket.create_server((address, port), family=family, backlog=0))
        for _ in range(FILLERS):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield
