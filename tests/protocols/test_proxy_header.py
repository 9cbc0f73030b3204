"""The PROXY header: every field, any cut, and never an octet beyond it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocols.proxy_header import (
    HEAD_OCTETS,
    MAX_BLOCK_OCTETS,
    MAX_LINE_OCTETS,
    SHORTEST_OCTETS,
    Address,
    HeaderReader,
    NotAHeader,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BEHIND = b"\x16\x03\x01\0\r\n\r\n"  # what follows a header; nothing in it may be asked for

# What HAProxy 2.6.12 sent on loopback, taken off the wire: `send-proxy`, `send-proxy-v2`, with a listener on a Unix
# socket, with `set-dst` to IPv6 for an IPv4 client, as a health check, and with all its `proxy-v2-options`.
HAPROXY_TLVS = (
    b"\x03\x00\x04\xfc\xd8\xe3\x9a"
    b"\x01\x00\x04imap"
    b"\x02\x00\x0cmail.example"
    b"\x05\x00\x0econn-127.0.0.1"
    b" \x00?\x01\x00\x00\x00\x00!\x00\x07TLSv1.3%\x00\x07RSA2048$\x00\nRSA-SHA256#\x00\x16TLS_AES_256_GCM_SHA384"
)
HAPROXY: dict[str, tuple[bytes, Address | None]] = {
    "v1": (b"PROXY TCP4 127.0.0.1 127.0.0.1 49298 18401\r\n", IPv4Address("127.0.0.1")),
    "v1-ipv6": (b"PROXY TCP6 ::1 ::1 53016 18401\r\n", IPv6Address("::1")),
    "v1-mixed": (b"PROXY TCP6 ::ffff:127.0.0.1 2001:db8::1 38796 18406\r\n", IPv4Address("127.0.0.1")),
    "v1-unix": (b"PROXY UNKNOWN\r\n", None),
    "v2": (
        SIGNATURE + b"!\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x8d\x9eG\xe2",
        IPv4Address("127.0.0.1"),
    ),
    "v2-ipv6": (SIGNATURE + b"!!\x00$" + 2 * (bytes(15) + b"\x01") + b"\x84\xeaG\xe2", IPv6Address("::1")),
    "v2-mixed": (
        SIGNATURE
        + b"!!\x00$"
        + (bytes(10) + b"\xff\xff\x7f\x00\x00\x01")
        + (b" \x01\r\xb8" + bytes(11) + b"\x01")
        + b"\x8a\xb0G\xe7",
        IPv4Address("127.0.0.1"),
    ),
    "v2-check": (SIGNATURE + b" \x00\x00\x00", None),
    "v2-tlvs": (
        SIGNATURE + b"!\x11\x00|\x7f\x00\x00\x01\x7f\x00\x00\x01\x91@G\xe3" + HAPROXY_TLVS,
        IPv4Address("127.0.0.1"),
    ),
}


def binary(block: bytes = b"", *, command: int = 0x21, protocol: int = 0x11, announced: int | None = None) -> bytes:
    octets = len(block) if announced is None else announced
    return SIGNATURE + bytes([command, protocol]) + octets.to_bytes(2, "big") + block


def read(octets: bytes, most: int = MAX_BLOCK_OCTETS) -> tuple[Address | None, int]:
    """The header at the start of these octets, read in pieces of at most so many: its source, and its length.

    Raises:
        NotAHeader: from the reader.
        EOFError: it asks for more octets than there are.
    """
    reader, position = HeaderReader(), 0
    while reader.wanted:
        piece = octets[position : position + min(most, reader.wanted)]
        if not piece:
            raise EOFError("more is wanted")
        reader.feed(piece)
        position += len(piece)
    return reader.source, position


def outcome(octets: bytes, most: int = MAX_BLOCK_OCTETS) -> tuple[Address | None, int] | str:
    """The same, or why it is not one."""
    try:
        return read(octets, most)
    except (NotAHeader, EOFError) as wrong:
        return str(wrong)


# --- what HAProxy sends


@pytest.mark.parametrize(("header", "source"), HAPROXY.values(), ids=HAPROXY)
@pytest.mark.parametrize("most", [1, 2, 7, MAX_BLOCK_OCTETS])
def test_what_haproxy_sends_is_read_and_nothing_behind_it(header: bytes, source: Address | None, most: int) -> None:
    assert read(header + BEHIND, most) == (source, len(header))


@pytest.mark.parametrize("header", [header for header, _ in HAPROXY.values()], ids=HAPROXY)
def test_until_it_is_complete_more_is_wanted_but_never_more_than_it_has(header: bytes) -> None:
    reader = HeaderReader()
    for position in range(len(header)):
        assert 1 <= reader.wanted <= len(header) - position
        reader.feed(header[position : position + 1])
    assert reader.wanted == 0


def test_few_reads_are_enough_for_a_binary_header() -> None:
    reader, wants, position = HeaderReader(), [], 0
    header = HAPROXY["v2-tlvs"][0]
    while reader.wanted:
        wants.append(reader.wanted)
        reader.feed(header[position : position + wants[-1]])
        position += wants[-1]
    assert wants == [SHORTEST_OCTETS, 1, 0x7C]


# --- the written header (PROXY protocol §2.1)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (b"TCP4 255.255.255.255 255.255.255.255 65535 65535", IPv4Address("255.255.255.255")),
        (b"TCP4 192.0.2.1 192.0.2.2 0 0", IPv4Address("192.0.2.1")),
        (b"TCP6 2001:DB8::a 2001:db8::b 1 143", IPv6Address("2001:db8::a")),
        (b"TCP6 ::ffff:c000:201 :: 1 143", IPv4Address("192.0.2.1")),
        (b"TCP6 %b %b 65535 65535" % (b":".join([b"ffff"] * 8), b":".join([b"ffff"] * 8)), IPv6Address(2**128 - 1)),
        (b"UNKNOWN", None),
        (b"UNKNOWN ", None),
        (b"UNKNOWN %b %b 65535 65535" % (b":".join([b"ffff"] * 8), b":".join([b"ffff"] * 8)), None),
        (b"UNKNOWN \r \n \xff\0 whatever it is\r", None),
    ],
)
@pytest.mark.parametrize("most", [1, 2, 107])
def test_line(line: bytes, source: Address | None, most: int) -> None:
    header = b"PROXY " + line + b"\r\n"
    assert len(header) <= MAX_LINE_OCTETS
    assert read(header + BEHIND, most) == (source, len(header))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"TCP4",
        b"TCP5 192.0.2.1 192.0.2.2 1 143",
        b"tcp4 192.0.2.1 192.0.2.2 1 143",
        b"UDP4 192.0.2.1 192.0.2.2 1 143",
        b"UNKNOWNS 192.0.2.1",
        b"unknown",
        b" TCP4 192.0.2.1 192.0.2.2 1 143",
        b"TCP4  192.0.2.1 192.0.2.2 1 143",
        b"TCP4\t192.0.2.1 192.0.2.2 1 143",
        b"TCP4 192.0.2.1 192.0.2.2 1 143 ",
        b"TCP4 192.0.2.1 192.0.2.2 1",
        b"TCP4 192.0.2.1 192.0.2.2 1 143 5",
        b"TCP4 192.0.2.1 192.0.2.2 1 143\r",
        b"TCP4 192.0.2.1 192.0.2.2 1 143\nTCP4",
        b"TCP4 192.0.2 192.0.2.2 1 143",
        b"TCP4 192.0.2.256 192.0.2.2 1 143",
        b"TCP4 192.0.2.01 192.0.2.2 1 143",
        b"TCP4 192.0.2.1 192.0.2.02 1 143",
        b"TCP4 192.0.2.1/32 192.0.2.2 1 143",
        b"TCP4 \xd9\xa1.0.2.1 192.0.2.2 1 143",
        b"TCP4 ::1 ::1 1 143",
        b"TCP4 192.0.2.1 ::1 1 143",
        b"TCP6 192.0.2.1 192.0.2.2 1 143",
        b"TCP6 ::1%lo ::1 1 143",
        b"TCP6 [::1] ::1 1 143",
        b"TCP6 1::2::3 ::1 1 143",
        b"TCP6 1:2:3:4:5:6:7 ::1 1 143",
        b"TCP6 ::12345 ::1 1 143",
        b"TCP4 192.0.2.1 192.0.2.2 65536 143",
        b"TCP4 192.0.2.1 192.0.2.2 1 65536",
        b"TCP4 192.0.2.1 192.0.2.2 01 143",
        b"TCP4 192.0.2.1 192.0.2.2 1 00",
        b"TCP4 192.0.2.1 192.0.2.2 -1 143",
        b"TCP4 192.0.2.1 192.0.2.2 1 143000",
        b"TCP4 192.0.2.1 192.0.2.2  143",
    ],
)
def test_a_line_that_is_not_exactly_as_it_must_be(line: bytes) -> None:
    with pytest.raises(NotAHeader):
        read(b"PROXY " + line + b"\r\n")


def test_a_line_has_an_end() -> None:
    longest = b"PROXY UNKNOWN ".ljust(MAX_LINE_OCTETS - 2, b"x")
    assert read(longest + b"\r\n") == (None, MAX_LINE_OCTETS)
    for endless in (longest + b"x", longest + b"\rx", longest[:-1] + b"\n\n"):
        with pytest.raises(NotAHeader, match="within 107 octets"):
            read(endless + b"\r\n")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\n\r"])
def test_half_an_end_is_none(end: bytes) -> None:
    with pytest.raises(EOFError):
        read(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 143" + end)


# --- the binary header (PROXY protocol §2.2)

INET = b"\xc0\0\2\1" + b"\xc0\0\2\2" + b"\x30\x39\0\x8f"
INET6 = b"\x20\1\x0d\xb8" + bytes(11) + b"\1" + b"\x20\1\x0d\xb8" + bytes(11) + b"\2" + b"\x30\x39\0\x8f"
MAPPED = bytes(10) + b"\xff\xff\xc0\0\2\1" + INET6[16:]
TLV = b"\4\0\3abc"


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (binary(INET), IPv4Address("192.0.2.1")),
        (binary(INET + TLV * 100), IPv4Address("192.0.2.1")),
        (binary(INET + b"no TLV"), IPv4Address("192.0.2.1")),
        (binary(INET.ljust(MAX_BLOCK_OCTETS, b"\0")), IPv4Address("192.0.2.1")),
        (binary(INET6, protocol=0x21), IPv6Address("2001:db8::1")),
        (binary(INET6 + TLV, protocol=0x21), IPv6Address("2001:db8::1")),
        (binary(MAPPED, protocol=0x21), IPv4Address("192.0.2.1")),
        (binary(protocol=0x00), None),
        (binary(INET + TLV, protocol=0x00), None),
        (binary(bytes(216), protocol=0x31), None),
        (binary(command=0x20, protocol=0x00), None),
        (binary(INET, command=0x20), None),
        (binary(TLV, command=0x20, protocol=0x21), None),
        (binary(command=0x20, protocol=0xFF), None),
        (binary(bytes(MAX_BLOCK_OCTETS), command=0x20), None),
    ],
)
@pytest.mark.parametrize("most", [1, 13, MAX_BLOCK_OCTETS])
def test_binary(header: bytes, source: Address | None, most: int) -> None:
    assert read(header + BEHIND, most) == (source, len(header))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        *((binary(INET, command=command), "version and command") for command in (0, 1, 0x11, 0x22, 0x2F, 0x31, 0xFF)),
        *((binary(bytes(216), protocol=protocol), "no TCP") for protocol in (0x12, 0x22, 0x32, 0x10, 0x13, 0x41, 0xFF)),
        (binary(announced=11), "need 12 octets, and it announces 11"),
        (binary(announced=35, protocol=0x21), "need 36 octets, and it announces 35"),
        (binary(announced=4_097), "announces 4097 octets, and we take 4096"),
        (binary(announced=65_535, command=0x20), "announces 65535 octets"),
    ],
)
def test_a_head_that_cannot_be_taken_is_known_before_its_block_comes(head: bytes, why: str) -> None:
    with pytest.raises(NotAHeader, match=why):
        read(head[:HEAD_OCTETS])


@pytest.mark.parametrize("octets", [b"\x16", b"\0", b"G", b"PROXX", b"PROXY\t", b"\r\r", SIGNATURE[:-1] + b"\r"])
def test_a_stranger_is_known_at_the_first_octet_that_differs(octets: bytes) -> None:
    reader = HeaderReader()
    for position in range(len(octets) - 1):
        reader.feed(octets[position : position + 1])
    with pytest.raises(NotAHeader, match="does not begin as one"):
        reader.feed(octets[-1:])


# --- any cut, any octets

IPV4, IPV6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
ENDS = st.tuples(IPV4, IPV4) | st.tuples(IPV6, IPV6)
PORTS = st.tuples(st.integers(0, 65_535), st.integers(0, 65_535))


def written(source: Address, destination: Address, ports: tuple[int, int]) -> bytes:
    kind = "TCP4" if source.version == 4 else "TCP6"
    return f"PROXY {kind} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()


def packed(source: Address, destination: Address, ports: tuple[int, int], tlvs: bytes) -> bytes:
    block = source.packed + destination.packed + b"".join(port.to_bytes(2, "big") for port in ports)
    return binary(block + tlvs, protocol=0x11 if source.version == 4 else 0x21)


@given(ENDS, PORTS, st.binary(max_size=300), st.binary(), st.data())
def test_every_address_is_read_in_either_form_however_it_is_cut(
    ends: tuple[Address, Address], ports: tuple[int, int], tlvs: bytes, behind: bytes, data: st.DataObject
) -> None:
    source = ends[0]
    if isinstance(source, IPv6Address) and source.ipv4_mapped is not None:
        source = source.ipv4_mapped
    for header in (written(*ends, ports), packed(*ends, ports, tlvs)):
        reader, position = HeaderReader(), 0
        while reader.wanted:
            piece = data.draw(st.integers(1, reader.wanted))
            reader.feed((header + behind)[position : position + piece])
            position += piece
        assert (reader.source, position) == (source, len(header))


@given(st.sampled_from([b"", b"PROXY ", b"PROXY UNKNOWN ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]), st.binary())
def test_any_octets_come_to_the_same_end_however_they_are_cut(beginning: bytes, rest: bytes) -> None:
    octets = beginning + rest
    assert outcome(octets) == outcome(octets, 1) == outcome(octets, 3)


@given(st.sampled_from([b"PROXY ", SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"\x20\0"]), st.binary(min_size=1))
def test_octets_without_end_come_to_one(beginning: bytes, rest: bytes) -> None:
    """Within the bound there is a header, or an error that can be logged; the reader never waits for more."""
    most = HEAD_OCTETS + MAX_BLOCK_OCTETS
    found = outcome((beginning + rest * most)[:most])
    if isinstance(found, str):
        assert found != "more is wanted"
        assert found.isascii()
        assert found.isprintable()


def test_what_came_is_not_shown() -> None:
    for octets in (b"a LOGIN u hunter2\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 143\na LOGIN u hunter2\r\n"):
        with pytest.raises(NotAHeader) as wrong:
            read(octets)
        assert "hunter2" not in str(wrong.value)
        assert wrong.value.__cause__ is None
