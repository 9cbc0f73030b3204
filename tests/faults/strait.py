"""A narrow piece of network: a TCP proxy on loopback that cuts, resets, swallows or trickles on demand. Not a test.

What it is: bytes in, the same bytes out, until a storm. It repeats nothing and changes nothing. What it is not: a peer;
it knows no protocol, so that the octet at which a connection is struck may be any.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from tests.servers.child import free_port

Toward = Literal["server", "client"]
CHUNK_OCTETS = 16_384
TRICKLE_OCTETS, TRICKLE_EVERY_S = 512, 0.002  # at most a quarter of a megabyte a second
DEADLINE_S = 10.0


class How(enum.Enum):
    """What a storm does to a connection."""

    CLOSED = "closed"
    RESET = "reset"
    BLACKHOLE = "blackholed"
    TRICKLE = "trickled"


@dataclass(frozen=True, slots=True)
class Storm:
    how: How
    toward: Toward
    after_octets: int
    """Of this direction, on each connection; the octets before it are delivered."""


@dataclass
class _Link:
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    passed: dict[Toward, int] = field(default_factory=lambda: {"server": 0, "client": 0})
    struck: bool = False


class Strait:
    """A context manager: listens on `port` inside the `with`, and leads to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.struck = 0
        """How many connections a storm has met."""
        self._target_port = target_port
        self._storm: Storm | None = None
        self._calm = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def strike(self, storm: Storm) -> None:
        """From now on, connections that run already included."""
        self._in_loop(self._begin(storm))

    def calm(self) -> None:
        """Everything passes again; what was swallowed is delivered, as TCP would."""
        self._in_loop(self._begin(None))

    def __enter__(self) -> Self:
        self._thread.start()
        self._in_loop(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    async def _begin(self, storm: Storm | None) -> None:
        self._storm = storm
        if storm is None:
            self._calm.set()
        else:
            self._calm.clear()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1024)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._links.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        link = _Link((writer, beyond_writer))
        try:
            await asyncio.gather(
                self._pump(link, "server", reader, beyond_writer), self._pump(link, "client", beyond_reader, writer)
            )
        finally:
            for each in link.writers:
                each.close()

    async def _pump(
        self, link: _Link, toward: Toward, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK_OCTETS):
                await self._pass(link, toward, data, writer)
            if writer.can_write_eof() and not writer.transport.is_closing():
                writer.write_eof()

    async def _pass(self, link: _Link, toward: Toward, data: bytes, writer: asyncio.StreamWriter) -> None:
        storm = self._storm
        if storm is not None and (link.struck or self._meets(storm, link, toward, len(data))):
            if not link.struck:
                link.struck = True
                self.struck += 1
                room = max(0, storm.after_octets - link.passed[toward])
                await self._write(link, toward, data[:room], writer)
                data = data[room:]
            match storm.how:
                case How.CLOSED:
                    for each in link.writers:
                        each.close()
                    return
                case How.RESET:
                    for each in link.writers:
                        _reset(each)
                    return
                case How.BLACKHOLE:
                    await self._calm.wait()
                case How.TRICKLE:
                    for at in range(0, len(data), TRICKLE_OCTETS):
                        await self._write(link, toward, data[at : at + TRICKLE_OCTETS], writer)
                        await asyncio.sleep(TRICKLE_EVERY_S)
                    return
        await self._write(link, toward, data, writer)

    def _meets(self, storm: Storm, link: _Link, toward: Toward, octets: int) -> bool:
        return storm.toward == toward and link.passed[toward] + octets > storm.after_octets

    async def _write(self, link: _Link, toward: Toward, data: bytes, writer: asyncio.StreamWriter) -> None:
        if data and not writer.transport.is_closing():
            link.passed[toward] += len(data)
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
