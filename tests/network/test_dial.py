"""Dialling: which address when, who wins, and that nothing stays open of those who do not."""

from __future__ import annotations

import errno
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from proxy.network.dial import MAX_ADDRESSES, NEXT_ADDRESS_AFTER_S, Address, DialFailed, dial, interleaved
from tests.network.scarcity import no_descriptors, silence
from tests.network.turning import TurningReactor, open_descriptors, watch

NAME = "mail.example"
LIMIT_S = 15.0
UNREACHABLE = "255.255.255.255"  # no TCP there: `connect` itself fails
A_MOMENT_S = 0.01


class Upstreams:
    """Upstream's addresses, all with one port: some answer, some are silent, all others refuse."""

    def __init__(self, reactor: TurningReactor, stack: ExitStack) -> None:
        self._reactor, self._stack = reactor, stack
        self._answering: dict[str, socket.socket] = {}
        # Bound without listening: the number is ours, and refuses wherever nobody listens.
        holder = stack.enter_context(socket.socket())
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.99", 0))
        self.port: int = holder.getsockname()[1]

    def answer(self, *addresses: str) -> None:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = self._stack.enter_context(socket.create_server((address, self.port), family=family))
            server.setblocking(False)
            self._answering[address] = server

    def be_silent(self, *addresses: str) -> None:
        for address in addresses:
            self._stack.enter_context(silence(address, self.port))

    def dial(self, *addresses: str, limit_s: float = LIMIT_S) -> Call:
        self._reactor.resolver.addresses[NAME] = addresses
        return Call(self._reactor, self.port, limit_s)

    def called(self, address: str) -> bool:
        """Whether somebody is, or was, connected there; each call is told once."""
        try:
            self._answering[address].accept()[0].close()
        except BlockingIOError:
            return False
        return True


class Call:
    """A dial under way."""

    def __init__(self, reactor: TurningReactor, port: int, limit_s: float, host: str = NAME) -> None:
        self._reactor = reactor
        self.deferred = Deferred.fromCoroutine(dial(host, port, limit_s=limit_s, reactor=reactor))
        self._outcome = watch(self.deferred)
        reactor.at_end.append(self._hang_up)

    @property
    def ended(self) -> bool:
        return bool(self._outcome)

    def socket(self) -> socket.socket:
        """What it has come to, with no more time."""
        self._reactor.settle()
        assert self._outcome, "not connected yet"
        if isinstance(self._outcome[0], Failure):
            self._outcome[0].raiseException()
        assert isinstance(self._outcome[0], socket.socket)
        return self._outcome[0]

    def reaches(self) -> str:
        """The address that it is connected to."""
        return str(self.socket().getpeername()[0])

    def _hang_up(self) -> None:
        if self._outcome and isinstance(self._outcome[0], socket.socket):
            self._outcome[0].close()


@pytest.fixture
def upstreams(reactor: TurningReactor) -> Iterator[Upstreams]:
    with ExitStack() as stack:
        yield Upstreams(reactor, stack)


def is_at_rest(reactor: TurningReactor) -> bool:
    """Nothing is watched, and nothing will happen later."""
    return not (reactor.getReaders() or reactor.getWriters() or reactor.getDelayedCalls())


# --- the order

SIX = st.integers(1, 9).map(lambda number: (socket.AF_INET6, f"2001:db8::{number}", 993))
FOUR = st.integers(1, 9).map(lambda number: (socket.AF_INET, f"192.0.2.{number}", 993))


@given(st.lists(SIX | FOUR, max_size=18, unique=True))
def test_families_take_turns_and_keep_the_resolvers_order(resolved: list[Address]) -> None:
    dialled = interleaved(resolved)
    assert len(dialled) == min(len(resolved), MAX_ADDRESSES)
    for family in (socket.AF_INET, socket.AF_INET6):
        kept = [address for address in dialled if address[0] == family]
        assert kept == [address for address in resolved if address[0] == family][: len(kept)]
    families = [family for family, *_ in dialled]
    pairs = min(families.count(socket.AF_INET), families.count(socket.AF_INET6))
    assert families[: 2 * pairs] == [socket.AF_INET6, socket.AF_INET] * pairs


# --- connecting


def test_it_connects(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1")
    call = upstreams.dial("127.0.0.1")
    assert call.reaches() == "127.0.0.1"
    assert reactor.resolver.asked == [(NAME, upstreams.port)]
    assert not call.socket().getblocking()
    assert is_at_rest(reactor)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_address_needs_no_resolver(reactor: TurningReactor, upstreams: Upstreams, address: str) -> None:
    upstreams.answer(address)
    reactor.resolver.holds = True
    call = Call(reactor, upstreams.port, LIMIT_S, host=address)
    assert call.reaches() == address
    assert reactor.resolver.asked == []


def test_an_address_that_refuses_is_told_as_one(reactor: TurningReactor, upstreams: Upstreams) -> None:
    with pytest.raises(DialFailed, match=rf"^127\.0\.0\.2:{upstreams.port}: Connection refused$"):
        Call(reactor, upstreams.port, LIMIT_S, host="127.0.0.2").reaches()


def test_ipv6_comes_first_and_alone_if_it_answers(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1", "::1")
    assert upstreams.dial("127.0.0.1", "::1").reaches() == "::1"
    reactor.pass_time(1)
    assert not upstreams.called("127.0.0.1")


def test_each_address_gets_its_moment_before_the_next(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("127.0.0.2", "127.0.0.3")
    upstreams.answer("127.0.0.4")
    call = upstreams.dial("127.0.0.2", "127.0.0.3", "127.0.0.4")
    for dialled in (1, 2):
        reactor.pass_time(NEXT_ADDRESS_AFTER_S - A_MOMENT_S)
        assert len(reactor.getWriters()) == dialled
        assert not call.ended
        reactor.pass_time(A_MOMENT_S)
    assert call.reaches() == "127.0.0.4"
    assert is_at_rest(reactor)


def test_a_broken_ipv6_path_costs_a_moment(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("::1")
    upstreams.answer("127.0.0.1")
    call = upstreams.dial("127.0.0.1", "::1")
    reactor.settle()
    assert not call.ended
    reactor.pass_time(NEXT_ADDRESS_AFTER_S)
    assert call.reaches() == "127.0.0.1"


def test_a_refused_address_is_passed_over_at_once(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.4")
    assert upstreams.dial("127.0.0.2", "127.0.0.3", "127.0.0.4").reaches() == "127.0.0.4"
    assert reactor.seconds() == 0
    assert is_at_rest(reactor)


@pytest.mark.parametrize("first", ["127.0.0.2", UNREACHABLE])
def test_after_a_refusal_the_next_address_has_a_whole_moment(
    reactor: TurningReactor, upstreams: Upstreams, first: str
) -> None:
    upstreams.be_silent("127.0.0.3")
    upstreams.answer("127.0.0.4")
    call = upstreams.dial(first, "127.0.0.3", "127.0.0.4")
    reactor.settle()
    assert len(reactor.getWriters()) == 1
    reactor.pass_time(NEXT_ADDRESS_AFTER_S - A_MOMENT_S)
    assert not call.ended
    reactor.pass_time(A_MOMENT_S)
    assert call.reaches() == "127.0.0.4"


def test_a_refusal_brings_the_next_on_while_an_older_one_is_silent(
    reactor: TurningReactor, upstreams: Upstreams
) -> None:
    upstreams.be_silent("127.0.0.2")
    upstreams.answer("127.0.0.4")
    call = upstreams.dial("127.0.0.2", "127.0.0.3", "127.0.0.4")
    reactor.pass_time(NEXT_ADDRESS_AFTER_S)
    assert call.reaches() == "127.0.0.4"


def test_two_that_answer_together_leave_one(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("::1", "127.0.0.1")
    before = open_descriptors()
    call = upstreams.dial("::1", "127.0.0.1")
    reactor.advance(NEXT_ADDRESS_AFTER_S)  # without a look at the sockets
    assert len(reactor.getWriters()) == 2
    assert len(open_descriptors() - before) == 2
    call.reaches()
    assert upstreams.called("::1")
    assert upstreams.called("127.0.0.1")
    assert len(open_descriptors() - before) == 1
    assert is_at_rest(reactor)


def test_an_address_whose_descriptor_is_lost_has_failed(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("127.0.0.2")
    upstreams.answer("127.0.0.4")
    call = upstreams.dial("127.0.0.2", "127.0.0.4")
    reactor.getWriters()[0].connectionLost(Failure(ConnectionLost()))
    assert call.reaches() == "127.0.0.4"
    assert reactor.seconds() == 0


def test_a_family_that_the_machine_lacks_is_passed_over(
    reactor: TurningReactor, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams.answer("127.0.0.1")

    class OldSocket(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", OldSocket)
    call = upstreams.dial("::1", "127.0.0.1")
    assert call.reaches() == "127.0.0.1"
    assert reactor.seconds() == 0


# --- not connecting


def test_all_refuse(reactor: TurningReactor, upstreams: Upstreams) -> None:
    call = upstreams.dial("127.0.0.2", "127.0.0.3")
    with pytest.raises(DialFailed, match=rf"^{NAME}:{upstreams.port}: Connection refused$"):
        call.reaches()
    assert reactor.seconds() == 0
    assert is_at_rest(reactor)


def test_the_name_has_no_address(reactor: TurningReactor, upstreams: Upstreams) -> None:
    with pytest.raises(DialFailed, match=rf"^{NAME}:{upstreams.port}: the name has no address$"):
        upstreams.dial().reaches()
    assert is_at_rest(reactor)


def test_beyond_so_many_addresses_it_gives_up(upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1")
    refusing = [f"127.0.1.{number}" for number in range(MAX_ADDRESSES)]
    assert upstreams.dial(*refusing[1:], "127.0.0.1").reaches() == "127.0.0.1"
    with pytest.raises(DialFailed, match="Connection refused"):
        upstreams.dial(*refusing, "127.0.0.1").reaches()


def test_none_answers_within_the_limit(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("127.0.0.2", "127.0.0.3")
    before = open_descriptors()
    call = upstreams.dial("127.0.0.2", "127.0.0.3")
    reactor.pass_time(LIMIT_S - A_MOMENT_S)
    assert not call.ended
    assert len(open_descriptors() - before) == 2
    reactor.pass_time(A_MOMENT_S)
    with pytest.raises(DialFailed, match=rf"^{NAME}:{upstreams.port}: no answer within 15 s$"):
        call.reaches()
    assert is_at_rest(reactor)
    assert open_descriptors() == before


def test_the_last_address_gets_its_time_when_all_before_have_failed(
    reactor: TurningReactor, upstreams: Upstreams
) -> None:
    upstreams.be_silent("127.0.0.4")
    call = upstreams.dial("127.0.0.2", "127.0.0.4", limit_s=3)
    reactor.pass_time(3 - A_MOMENT_S)
    assert not call.ended
    reactor.pass_time(A_MOMENT_S)
    with pytest.raises(DialFailed, match="no answer within 3 s"):
        call.reaches()


def test_a_silent_address_gets_its_time_when_all_behind_it_have_failed(
    reactor: TurningReactor, upstreams: Upstreams
) -> None:
    upstreams.be_silent("127.0.0.2")
    call = upstreams.dial("127.0.0.2", "127.0.0.4", limit_s=3)
    reactor.pass_time(3 - A_MOMENT_S)
    assert not call.ended
    reactor.pass_time(A_MOMENT_S)
    with pytest.raises(DialFailed, match="no answer within 3 s"):
        call.reaches()


def test_a_resolver_that_does_not_answer_is_left(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1")
    reactor.resolver.holds = True
    call = upstreams.dial("127.0.0.1")
    reactor.pass_time(LIMIT_S)
    with pytest.raises(DialFailed, match="no answer within 15 s"):
        call.reaches()
    reactor.resolver.tell()
    reactor.settle()
    assert not upstreams.called("127.0.0.1")
    assert is_at_rest(reactor)


def test_without_descriptors_it_fails_at_once_and_says_so(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1", "::1")
    with no_descriptors():
        call = upstreams.dial("127.0.0.1", "::1")
        with pytest.raises(DialFailed, match="Too many open files"):
            call.reaches()
    assert reactor.seconds() == 0
    assert is_at_rest(reactor)
    assert upstreams.dial("127.0.0.1").reaches() == "127.0.0.1"


# --- cancelling


def test_cancelling_closes_every_socket(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("127.0.0.2", "127.0.0.3", "127.0.0.4")
    upstreams.answer("127.0.0.5")
    before = open_descriptors()
    call = upstreams.dial("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
    reactor.pass_time(2 * NEXT_ADDRESS_AFTER_S)
    assert len(open_descriptors() - before) == 3
    call.deferred.cancel()
    with pytest.raises(CancelledError):
        call.reaches()
    assert is_at_rest(reactor)
    assert open_descriptors() == before
    reactor.pass_time(LIMIT_S)
    assert not upstreams.called("127.0.0.5")


def test_cancelling_while_a_refusal_is_on_its_way(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.5")
    call = upstreams.dial(UNREACHABLE, "127.0.0.5")
    call.deferred.cancel()
    with pytest.raises(CancelledError):
        call.reaches()
    assert is_at_rest(reactor)
    assert not upstreams.called("127.0.0.5")


def test_cancelling_before_the_name_is_resolved(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.answer("127.0.0.1")
    reactor.resolver.holds = True
    call = upstreams.dial("127.0.0.1")
    call.deferred.cancel()
    reactor.resolver.tell()
    with pytest.raises(CancelledError):
        call.reaches()
    assert is_at_rest(reactor)
    assert not upstreams.called("127.0.0.1")


def test_many_dials_leave_nothing_open(reactor: TurningReactor, upstreams: Upstreams) -> None:
    upstreams.be_silent("127.0.0.2")
    upstreams.answer("127.0.0.4")
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as left_to_the_collector:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(50):
            call = upstreams.dial("127.0.0.2", "127.0.0.3", "127.0.0.4")
            reactor.pass_time(NEXT_ADDRESS_AFTER_S)
            call.socket().close()
            assert upstreams.called("127.0.0.4")
    assert open_descriptors() == before
    assert not left_to_the_collector
