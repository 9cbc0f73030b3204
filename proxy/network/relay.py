"""After the login: the pump between two streams, unaltered both ways.

Nothing here knows what the bytes mean. What a socket does not take at once is kept (at most one buffer a direction) and
the other side is not read until it is gone, so memory stays flat however slow a reader is. A client's half-close is
passed on and the answer still delivered; what is kept is delivered before a close.

Three hooks of the protocol stand beside the pump, all for short turns only: `overhear` is shown what upstream said,
once it is passed on; `last_words` may say goodbye for an upstream that is gone; and `parting` knows where a daemon that
stops may end the session, with nothing half done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from proxy.log import Log
from proxy.network.stream import WOULD_BLOCK, Stream

BUFFER_OCTETS = 256 * 1024  # SPEED.md: sixteen TLS records a turn of the reactor; also what one direction may keep
SHORT_READ_OCTETS = 1_024  # a command or a short answer: nothing more is there, and one empty read is saved
NOTICED_OCTETS = 512  # the longest reply line (RFC 5321 §4.5.3.1.5); IMAP's status lines are shorter, mails longer
FINISH_LIMIT_S = 8.0  # what is under way when the daemon stops; within the ferry's DRAIN_LIMIT_S
QUIET_S = 1.0  # nothing moved for so long: nothing is under way, though we do not know what was said last
HALF_CLOSED_LIMIT_S = 60  # a client that closed its side gets this long between two pieces of the rest

_log = Log("relay")
_buffer = memoryview(bytearray(BUFFER_OCTETS))
"""Shared by all sessions: a turn fills it and empties it before the next begins."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """How a relayed session ended."""

    octets_up: int
    octets_down: int
    reason: str


class _Direction:
    """From one stream to the other. It is what sits on the source after the login."""

    __slots__ = ("_relay", "_sink", "_source", "ended", "octets", "said")

    def __init__(self, relay: Relay, source: Stream, sink: Stream) -> None:
        self._relay = relay
        self._source = source
        self._sink = sink
        self.octets = 0
        self.said = b""
        """What the last turn moved, if it was a short one and not the rest of a long one."""
        self.ended = False
        """The source's data has ended, and the sink was told (or will be, after what is kept)."""

    def start(self, early: bytes) -> None:
        """`early` was read behind the login and goes first."""
        self._source.read_with(self.pump, self)
        self._sink.registerProducer(self._source, True)
        self._source.startReading()
        self.octets += len(early)
        self._sink.write(early)  # pauses the source until it is gone
        if 0 < len(early) <= NOTICED_OCTETS:
            self._relay.noticed(self, early)

    def end_if_at_eof(self) -> None:
        """What a source said before its end has been read during the login."""
        if self._source.at_eof and not self.ended:
            self._end()

    def pump(self) -> Exception | None:
        """Move what is there, at most one buffer a turn, so that no session starves another."""
        source, sink = self._source, self._sink
        filled = 0
        ended = False
        try:
            while filled < BUFFER_OCTETS:
                count = source.recv_into(_buffer[filled:])
                filled += count
                if count < SHORT_READ_OCTETS:
                    ended = count == 0
                    break
        except WOULD_BLOCK as wants:
            source.note(wants)
        except OSError as lost:
            if not filled:
                return error.ConnectionLost(str(lost))
        if filled:
            self.octets += filled
            sent = sink.send_now(_buffer[:filled])
            if sent < filled:
                sink.write(bytes(_buffer[sent:filled]))  # pauses the source until it is gone
            if filled > NOTICED_OCTETS:
                self._relay.bulk, self._relay.spoke_last, self.said = self, self, b""
            else:
                self._relay.noticed(self, bytes(_buffer[:filled]))
        if ended:
            self._end()
        else:
            source.read_decrypted_soon()
        return None

    def _end(self) -> None:
        self._source.end_of_data()
        self.ended = True
        self._sink.unregisterProducer()
        self._relay.direction_ended(self)

    def pass_on_end(self) -> None:
        self._sink.loseWriteConnection()

    # StreamProtocol: only the loss of the source is told; reading is ours

    def makeConnection(self, transport: Stream) -> None: ...
    def dataReceived(self, data: bytes) -> None: ...
    def readConnectionLost(self) -> None: ...
    def connectionLost(self, _: Failure) -> None:
        self._relay.stream_lost(self)


class Relay:
    """Both directions of one session, until both streams are closed.

    `overhear` is called with each short turn of upstream's, after it was passed on. `last_words` is asked when upstream
    is gone and the client is not: given the last turn of each side (client's, upstream's; empty if it was a long one),
    it says what the client is told before the close. `parting` is asked when the daemon stops, in the same way: what
    the client is told if nothing is under way, or None.
    """

    def __init__(
        self,
        client: Stream,
        upstream: Stream,
        *,
        idle_limit_s: float,
        clock: IReactorTime,
        overhear: Callable[[bytes], None],
        last_words: Callable[[bytes, bytes], bytes],
        parting: Callable[[bytes, bytes], bytes | None],
    ) -> None:
        self._client, self._upstream = client, upstream
        self._up = _Direction(self, client, upstream)
        self._down = _Direction(self, upstream, client)
        self._idle_limit_s = idle_limit_s
        self._clock = clock
        self._overhear = overhear
        self._last_words = last_words
        self._parting = parting
        self._parts = False
        """The daemon stops; ends as soon as nothing is under way."""
        self.spoke_last: _Direction | None = None
        self.bulk: _Direction | None = None
        """Who moved the last long turn, until the client speaks: what upstream adds may be the rest of a mail."""
        self._timer: IDelayedCall | None = None
        self._octets_at_last_look = 0
        self._reason = ""
        self._closing = False
        self._open = 2
        self._done: Deferred[Relayed] = Deferred(lambda _: self.abort("stopped"))

    def run(self, *, to_upstream: bytes, to_client: bytes) -> Deferred[Relayed]:
        """Relay until both streams are closed. Bytes already read on either side go first."""
        self._watch(self._idle_limit_s)
        self._down.start(to_client)
        self._up.start(to_upstream)
        self._up.end_if_at_eof()
        self._down.end_if_at_eof()
        return self._done

    def octets(self) -> tuple[int, int]:
        """What has been relayed until now: up, and down."""
        return self._up.octets, self._down.octets

    def part(self) -> None:
        """The daemon stops: end as soon as nothing is under way, and say so where the protocol has words for it."""
        if self._parts or self._closing:
            return
        self._parts = True
        self._part_if_at_rest()
        if not self._closing:
            self._look_for_rest(0.0)

    def close(self, reason: str) -> None:
        """Deliver what is kept, then close both."""
        self._reason, self._closing = self._reason or reason, True
        for stream in (self._client, self._upstream):
            stream.unregisterProducer()
            stream.loseConnection()

    def abort(self, reason: str) -> None:
        self._reason, self._closing = self._reason or reason, True
        self._client.abortConnection()
        self._upstream.abortConnection()

    # told by the directions

    def noticed(self, direction: _Direction, piece: bytes) -> None:
        """A short turn has been passed on."""
        self.spoke_last = direction
        if direction is self._up:
            direction.said, self.bulk = piece, None
        elif self.bulk is not direction:
            direction.said = piece
            try:
                self._overhear(piece)
            except Exception as unforeseen:  # who listens in passing must not end the session
                _log.failure("a reply was not understood", unforeseen)
            if self._parts:
                self._clock.callLater(0, self._part_if_at_rest)  # not within the turn that reads

    def direction_ended(self, direction: _Direction) -> None:
        if direction is self._up and not self._down.ended:
            self._reason = self._reason or "client closed"
            direction.pass_on_end()
            self._watch(min(HALF_CLOSED_LIMIT_S, self._idle_limit_s))
        else:  # upstream has nothing more to say: nor will it listen
            self._close_for_upstream("upstream closed")

    def stream_lost(self, direction: _Direction) -> None:
        self._open -= 1
        if self._open:
            if direction is self._up:
                self.close("client lost")
            else:
                self._close_for_upstream("upstream lost")
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._done.callback(Relayed(self._up.octets, self._down.octets, self._reason))

    def _close_for_upstream(self, reason: str) -> None:
        """Upstream is gone: say so to a client that is there and knows of no end yet, then close."""
        if not self._reason:
            self._client.unregisterProducer()
            self._client.write(self._last_words(self._up.said, self._down.said))
        self.close(reason)

    def _part_if_at_rest(self) -> None:
        """Say goodbye and close, if all that was asked is known to be answered."""
        if self._closing or self._up.ended or self.spoke_last is self._up or self.bulk is self._down:
            return
        words = self._parting(self._up.said, self._down.said)
        if words is not None:
            self._client.unregisterProducer()
            self._client.write(words)
            self.close("stopping")

    def _look_for_rest(self, waited_s: float) -> None:
        """Close at the first silence in which upstream owes no answer, or when the time is over."""
        octets = self._up.octets + self._down.octets
        silent = waited_s > 0 and octets == self._octets_at_last_look
        owed = self.spoke_last is self._up or self._client.unsent() or self._upstream.unsent()
        if silent and not owed:
            self.close("stopping")
        elif waited_s >= FINISH_LIMIT_S:
            self.close("stopping, unfinished")
        else:
            self._octets_at_last_look = octets
            self._set_timer(QUIET_S, self._look_for_rest, waited_s + QUIET_S)

    def _set_timer(self, after_s: float, what: Callable[[float], None], argument: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(after_s, what, argument)

    def _watch(self, limit_s: float) -> None:
        """Look again after the limit; a session that moved no octet since the last look is idle.

        The hot loop only counts, it reads no clock: so a session is closed after one to two limits of silence.
        """
        if self._parts:  # and looks itself
            return
        self._octets_at_last_look = self._up.octets + self._down.octets
        self._set_timer(limit_s, self._look, limit_s)

    def _look(self, limit_s: float) -> None:
        if self._up.octets + self._down.octets == self._octets_at_last_look:
            self._reason = self._reason or "idle"
            self.abort("idle") if self._client.unsent() or self._upstream.unsent() else self.close("idle")
        else:
            self._watch(limit_s)
