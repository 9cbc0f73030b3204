"""The grammar alone: readings in their order, bounds, and time that grows with the input only."""

from __future__ import annotations

import pytest

from proxy.protocols.dialogue import InputBuffer, LineTooLong
from proxy.protocols.imap_grammar import (
    MAX_COMMAND_LINE_OCTETS,
    MAX_COMMAND_OCTETS,
    MAX_LITERAL_OCTETS,
    MAX_RESPONSE_OCTETS,
    Argument,
    Command,
    CommandReader,
    Empty,
    Foreign,
    Form,
    LiteralAwaited,
    LiteralTooLong,
    Malformed,
    Reading,
    Response,
    ResponseReader,
    is_id_parameters,
)


def reader(data: bytes) -> tuple[CommandReader, InputBuffer]:
    source = InputBuffer()
    source.feed(data)
    return CommandReader(source), source


def readings(data: bytes) -> list[Reading]:
    commands, _ = reader(data)
    return list(iter(commands.next, None))


def responses(data: bytes) -> list[Response]:
    source = InputBuffer()
    source.feed(data)
    return list(iter(ResponseReader(source).next, None))


def test_command() -> None:
    assert readings(b"a1 login u@x  pa]ss \r\n") == [
        Command(b"a1", b"LOGIN", (Argument(b"u@x"), Argument(b"pa]ss"))),
    ]


def test_what_stands_behind_a_command_stays_in_the_buffer() -> None:
    commands, source = reader(b"a NOOP\r\nb NO")
    assert commands.next() == Command(b"a", b"NOOP")
    assert commands.next() is None
    assert source.drain() == b"b NO"


def test_quoted_strings() -> None:
    assert readings(b'a X "" "p q" "\\"\\\\" "d\\u"\r\n') == [
        Command(
            b"a",
            b"X",
            (
                Argument(b"", Form.QUOTED),
                Argument(b"p q", Form.QUOTED),
                Argument(b'"\\', Form.QUOTED),
                Argument(b"du", Form.QUOTED, b"d\\u"),
            ),
        )
    ]


def test_a_literal_interrupts_and_says_what_it_awaits() -> None:
    commands, source = reader(b"a LOGIN {3}\r\nu\r")
    assert commands.next() == LiteralAwaited(b"a", b"LOGIN")
    assert commands.next() is None
    source.feed(b"\n p\r\n")
    assert commands.next() == Command(b"a", b"LOGIN", (Argument(b"u\r\n", Form.LITERAL), Argument(b"p")))


def test_an_abandoned_command_is_forgotten() -> None:
    commands, source = reader(b"a LOGIN {3}\r\n")
    assert commands.next() == LiteralAwaited(b"a", b"LOGIN")
    commands.abandon()
    source.feed(b"b NOOP\r\n")
    assert commands.next() == Command(b"b", b"NOOP")


def test_literals_without_go_ahead() -> None:
    assert readings(b"a LOGIN {0+}\r\n {2+}\r\n\0\n\r\nb NOOP\r\n") == [
        Command(b"a", b"LOGIN", (Argument(b"", Form.LITERAL), Argument(b"\0\n", Form.LITERAL))),
        Command(b"b", b"NOOP"),
    ]


@pytest.mark.parametrize("number", [b"1025", b"99999999999", b"9" * 5_000])
def test_literal_too_long(number: bytes) -> None:
    assert readings(b"a X {" + number + b"}\r\na X {" + number + b"+}\r\n") == [
        LiteralTooLong(b"a", synchronizing=True),
        LiteralTooLong(b"a", synchronizing=False),
    ]


def test_longest_literal() -> None:
    value = b"v" * MAX_LITERAL_OCTETS
    assert readings(b"a X {1024+}\r\n" + value + b"\r\n") == [Command(b"a", b"X", (Argument(value, Form.LITERAL),))]


@pytest.mark.parametrize(
    ("line", "reading"),
    [
        (b"", Empty()),
        (b"a", Malformed(b"a")),
        (b"a ", Malformed(b"a")),
        (b" NOOP", Malformed(None)),
        (b"* NOOP", Malformed(None)),
        (b"\xff NOOP", Malformed(None)),
        (b"\x00a NOOP", Malformed(None)),
        (b"a N\x00OP", Malformed(b"a")),
        (b"a X \x00", Malformed(b"a")),
        (b"a X y\rz", Malformed(b"a")),
        (b'a X "y', Malformed(b"a")),
        (b'a X "y"z', Malformed(b"a")),
        (b'a X "y\\"', Malformed(b"a")),
        (b"a X {5} y", Malformed(b"a")),
        (b"a X {y", Malformed(b"a")),
        (b'a X"y"', Command(b"a", b'X"Y"')),
        (b"a {5}", Malformed(b"a")),
        (b"a {5+}", Malformed(b"a", in_step=False)),
        (b'a X "y {5+} ', Malformed(b"a", in_step=False)),
        (b"a+ {5+}", Malformed(None, in_step=False)),
        (b"GET / HTTP/1.1", Foreign("http")),
        (b"POST /x?y HTTP/1.0", Foreign("http")),
        (b"PROXY TCP6 ::1 ::1 1 2", Foreign("proxy_header")),
        (b"\0", Foreign("proxy_header")),
        (b"GET quota", Command(b"GET", b"QUOTA")),
    ],
)
def test_line(line: bytes, reading: Reading) -> None:
    assert readings(line + b"\r\n") == [reading]


def test_parentheses_are_tokens_in_id_only() -> None:
    (in_id,) = readings(b'a ID("k"(v)\r\n')
    (elsewhere,) = readings(b"a X (k (v)\r\n")
    assert isinstance(elsewhere, Command)
    assert [a.octets for a in elsewhere.arguments] == [b"(k", b"(v)"]
    assert in_id == Command(b"a", b'ID("K"(V)')
    (in_id,) = readings(b'a ID ("k"(v)\r\n')
    assert isinstance(in_id, Command)
    assert [a.octets for a in in_id.arguments] == [b"(", b"k", b"(", b"v", b")"]


def test_id_parameters_need_their_parentheses() -> None:
    key, value = Argument(b"k", Form.QUOTED), Argument(b"v", Form.QUOTED)
    opening, closing = Argument(b"("), Argument(b")")
    assert is_id_parameters([opening, key, value, closing])
    assert not is_id_parameters([opening, key, value])
    assert not is_id_parameters([key, value, closing])
    assert not is_id_parameters([Argument(b"NIL", Form.QUOTED)])
    assert is_id_parameters([Argument(b"nil")])


def test_a_line_is_bounded() -> None:
    commands, source = reader(b"a" * MAX_COMMAND_LINE_OCTETS)
    assert commands.next() is None
    source.feed(b"a")
    with pytest.raises(LineTooLong):
        commands.next()


def test_a_command_is_bounded_however_many_literals_it_has() -> None:
    commands, _ = reader(b"a X " + b"{1024+}\r\n%b " % (b"v" * 1024) * 64)
    with pytest.raises(LineTooLong):
        commands.next()
    commands, _ = reader(b"a X " + b"{0+}\r\n " * MAX_COMMAND_OCTETS)
    with pytest.raises(LineTooLong):
        commands.next()


def test_each_command_has_the_whole_bound() -> None:
    line = b"a X " + b"y" * 8_000 + b"\r\n"
    assert len(readings(line * 20)) == 20


def test_a_password_is_not_printed() -> None:
    (command,) = readings(b'a LOGIN u "hunter\\2"\r\n')
    assert "hunter" not in repr(command)


def test_responses() -> None:
    assert responses(b"* ok Ready {3}\r\n+ YWJj\r\n+\r\na OK [X] done\n* 1") == [
        Response(b"*", b"OK", b"Ready {3}", b"* ok Ready {3}\r\n"),
        Response(b"+", b"YWJJ", b"", b"+ YWJj\r\n"),
        Response(b"+", b"", b"", b"+\r\n"),
        Response(b"a", b"OK", b"[X] done", b"a OK [X] done\r\n"),
    ]
    assert responses(b"+ YWJj cd\r\n")[0].argument == b"YWJj cd"


def test_a_literal_is_part_of_its_response() -> None:
    octets = b'* LIST () "/" {4}\r\na\r\nb {2}\r\nxy z\r\n'
    assert responses(octets + b"* 1 RECENT\r\n") == [
        Response(b"*", b"LIST", octets[7:-2], octets),
        Response(b"*", b"1", b"RECENT", b"* 1 RECENT\r\n"),
    ]
    assert responses(octets[:21]) == []


@pytest.mark.parametrize(
    "data",
    [
        b"* X {99999999999}\r\n",
        b"* X {65530}\r\n",
        b"* X {65000}\r\n" + b"v" * 66_000,
        b"v" * (MAX_RESPONSE_OCTETS + 1),
    ],
)
def test_a_response_is_bounded(data: bytes) -> None:
    with pytest.raises(LineTooLong):
        responses(data)
