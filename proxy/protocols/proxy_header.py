"""PURE: the header that a balancer says before a connection it hands on: the PROXY protocol, versions 1 and 2.

The source is HAProxy's `doc/proxy-protocol.txt`, cited as "PROXY protocol §2.1" for the written header and "§2.2" for
the binary one. What the mail program says, a TLS ClientHello for instance, stands right behind the header and must
stay on the socket, so the reader says how many octets may be read without touching it.

What it is not: a decision whom to believe; that is the listener's `proxy_protocol`. `network/balancer.py` calls it.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

SHORTEST_OCTETS = 15  # `PROXY UNKNOWN` CRLF; every other header is longer
MAX_LINE_OCTETS = 107  # with its CRLF (PROXY protocol §2.1)
HEAD_OCTETS = 16  # of a binary header, before its addresses (PROXY protocol §2.2)
MAX_BLOCK_OCTETS = 4_096
"""What may follow the head. The protocol's own 536 octets hold the addresses, but not always what HAProxy can add to
them: a client's whole certificate (PROXY protocol §2.2.6), or values of one's own. nginx draws the line here too."""

Address = IPv4Address | IPv6Address

_WORD = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# Addresses are then read by `ipaddress`, which knows no leading zeros; only a zone (`%eth0`) it would let pass.
# HAProxy writes an IPv4 source with an IPv6 destination as `::ffff:192.0.2.1`, hence the dots.
_ADDRESS = rb"[0-9A-Fa-f:.]+"
_PORT = rb"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|(TCP4|TCP6) (%b) (%b) (%b) (%b))\r\n" % (_ADDRESS, _ADDRESS, _PORT, _PORT), re.DOTALL
)
_MAX_PORT = 65_535
_LINE_KINDS: dict[bytes, type[Address]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}

_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command


class _Block(NamedTuple):
    """What the octets behind a binary head begin with."""

    octets: int
    """Both addresses and both ports; what follows them are TLVs."""
    kind: type[Address] | None = None
    """None: nothing that we could use."""
    address_octets: int = 0


_BLOCKS = {
    0x00: _Block(0),  # unspecified
    0x11: _Block(12, IPv4Address, 4),
    0x21: _Block(36, IPv6Address, 16),
    0x31: _Block(0),  # a Unix socket's two paths, which nobody reads
}
"""By family and protocol, as far as a mail program's connection can have them: streams (PROXY protocol §2.2)."""


class NotAHeader(Exception):
    """What came is no PROXY header; the text says why, in one printable line that shows no word of it."""


class HeaderReader:
    """Reads one header, in pieces of any size up to what is `wanted`."""

    def __init__(self) -> None:
        self.wanted = SHORTEST_OCTETS
        """How many octets may be read next: they belong to the header, if it is one. 0: it is complete."""
        self.source: Address | None = None
        """Who connected to the balancer, IPv4 where it is only mapped into IPv6. None: the header does not say (the
        balancer speaks for itself, or does not know), and the connection's own address stands."""
        self._octets = b""

    def feed(self, octets: bytes) -> None:
        """Take what was read next, at most `wanted` octets.

        Raises:
            NotAHeader: it can never become one.
        """
        assert len(octets) <= self.wanted
        self._octets += octets
        if self._begins_as(_WORD):
            self._read_line()
        elif self._begins_as(_SIGNATURE):
            self._read_binary()
        else:
            raise NotAHeader("it does not begin as one; is the balancer told to send it?")

    def _begins_as(self, beginning: bytes) -> bool:
        """As far as it has come."""
        return self._octets[: len(beginning)] == beginning[: len(self._octets)]

    def _read_line(self) -> None:
        """PROXY protocol §2.1. Nothing tells a line's length before its CRLF: its end is approached in small steps."""
        if b"\r\n" in self._octets:
            self.source, self.wanted = _source_of_line(self._octets), 0
            return
        come = len(self._octets)
        missing = 1 if self._octets.endswith(b"\r") else 2
        if come + missing > MAX_LINE_OCTETS:
            raise NotAHeader(f"its line does not end within {MAX_LINE_OCTETS} octets")
        self.wanted = max(missing, SHORTEST_OCTETS - come)

    def _read_binary(self) -> None:
        """PROXY protocol §2.2: a head, which tells the length of the rest."""
        come = len(self._octets)
        if come < HEAD_OCTETS:
            self.wanted = HEAD_OCTETS - come
            return
        block, block_octets = _read_head(self._octets)
        self.wanted = HEAD_OCTETS + block_octets - come
        if not self.wanted and block.kind is not None:
            self.source = _unmapped(block.kind(self._octets[HEAD_OCTETS:][: block.address_octets]))


def _source_of_line(line: bytes) -> Address | None:
    """The reasons show nothing of the line: where its end is not as it should be, a password may have come behind."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise NotAHeader("its line is malformed")
    family, source, destination, *ports = found.groups()
    if family is None:
        return None
    try:
        announced, _ = (_LINE_KINDS[family](address.decode("ascii")) for address in (source, destination))
    except ValueError:
        raise NotAHeader("its line has a malformed address") from None
    if any(int(port) > _MAX_PORT for port in ports):
        raise NotAHeader(f"its line has a port beyond {_MAX_PORT}")
    return _unmapped(announced)


def _read_head(octets: bytes) -> tuple[_Block, int]:
    """What the block begins with, and its length in octets, TLVs included."""
    command, protocol, block_octets = struct.unpack_from("!BBH", octets, len(_SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise NotAHeader(f"its version and command are 0x{command:02x}, which we do not know")
    if block_octets > MAX_BLOCK_OCTETS:
        raise NotAHeader(f"it announces {block_octets} octets, and we take {MAX_BLOCK_OCTETS}")
    if command == _LOCAL:  # whatever family it names is to be ignored
        return _Block(0), block_octets
    block = _BLOCKS.get(protocol)
    if block is None:
        raise NotAHeader(f"its family and protocol are 0x{protocol:02x}, which is no TCP connection")
    if block_octets < block.octets:
        raise NotAHeader(f"its addresses need {block.octets} octets, and it announces {block_octets}")
    return block, block_octets


def _unmapped(address: Address) -> Address:
    """As `network/port.py` names peers, so that an address is one and the same for `allow_from` and throttles."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
