"""The I/O shell that runs any dialogue, front or upstream, on a stream: it writes, starts TLS, pauses and closes.

It does not know which protocol it runs, nor what a login is. `session.py` asks it for the dialogue's next `outcome`
and, on the front, performs what the dialogue answers to it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from proxy.log import Log
from proxy.network.stream import Stream
from proxy.network.watches import Transcript
from proxy.protocols.dialogue import (
    Action,
    Close,
    ExpireIn,
    Failed,
    Front,
    Heard,
    Login,
    Ready,
    Send,
    StartTLS,
    Upstream,
)

StartTls = Callable[[Stream], Deferred[None]]

log = Log("connection")


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended before the dialogue did; `reason` is for the log."""

    reason: str
    lasting: bool = False
    """The next one would end in the same way: the peer's certificate is not trusted."""


Outcome = Login | Ready | Failed | Lost


DialogueT = TypeVar("DialogueT", Front, Upstream)


@implementer(IPushProducer)
class Connection(Generic[DialogueT]):
    """A dialogue on a stream. While an outcome is with the session, the peer is not read: TCP makes it wait.

    `greet` is asked for the first actions in place of the dialogue's `opened`; `expire_in` is told what a front's
    `ExpireIn` says. A `transcript` is told what both sides say, as the dialogue shows it.
    """

    def __init__(
        self,
        dialogue: DialogueT,
        start_tls: StartTls,
        *,
        implicit_tls: bool,
        greet: Callable[[], list[Action]] | None = None,
        expire_in: Callable[[float], None] | None = None,
        transcript: Transcript | None = None,
    ) -> None:
        self.dialogue: DialogueT = dialogue
        self.stream: Stream | None = None
        self._start_tls = start_tls
        self._greet = greet or dialogue.opened
        self._expire_in = expire_in
        self._transcript = transcript
        self._implicit_tls = implicit_tls
        self._outcome: Outcome | None = None
        self._awaited: Deferred[Outcome] | None = None
        self._unsent = False
        """What we wrote has not left: reading on would pile up answers (CLIENTS case 37)."""

    # --- for the session

    def outcome(self) -> Deferred[Outcome]:
        """What the dialogue comes to next. Cancelling it closes the connection at once."""
        awaited: Deferred[Outcome] = Deferred(self._cancelled)
        if self._outcome is not None:
            awaited.callback(self._outcome)
        else:
            self._awaited = awaited
        return awaited

    @property
    def lost(self) -> bool:
        return isinstance(self._outcome, Lost)

    def perform(self, actions: list[Action]) -> None:
        """Carry out what the dialogue answered; the last outcome is settled."""
        if self.lost:
            return
        self._outcome = None
        self._read_if_wanted()
        self._perform(actions)

    def interject(self, actions: list[Action]) -> None:
        """Say something while an outcome is with the session, which is not settled by it."""
        if not self.lost:
            self._perform(actions)

    def release(self) -> tuple[Stream, bytes]:
        """Give the stream up, for the relay, and what was read behind the login."""
        stream, self.stream = self.stream, None
        assert stream is not None
        stream.unregisterProducer()
        return stream, self.dialogue.unread()

    def abort(self) -> None:
        if self.stream is not None:
            self.stream.abortConnection()

    # --- what the stream tells (StreamProtocol)

    def makeConnection(self, transport: Stream) -> None:
        self.stream = transport
        transport.registerProducer(self, True)
        if self._implicit_tls:
            self._start_tls(transport).addCallbacks(self._opened, self._tls_failed).addErrback(self._broken)
        else:
            self._opened(None)

    def dataReceived(self, data: bytes) -> None:
        self._perform(self.dialogue.received(data))

    def readConnectionLost(self) -> None:
        """The peer sends nothing more, in the middle of the dialogue."""
        self._close("peer left")

    def connectionLost(self, reason: Failure) -> None:
        self.stream = None
        if not self.lost:
            self._settle(Lost(reason.getErrorMessage()))

    # --- what the stream asks of its producer

    def pauseProducing(self) -> None:
        self._unsent = True
        self._read_if_wanted()

    def resumeProducing(self) -> None:
        self._unsent = False
        self._read_if_wanted()

    def stopProducing(self) -> None:
        pass  # connectionLost tells

    # --- inside

    def _cancelled(self, _: Deferred[Outcome]) -> None:
        self._awaited = None
        self.abort()

    def _read_if_wanted(self) -> None:
        if self.stream is None or self.stream.disconnecting:
            return
        if self._outcome is None and not self._unsent:
            self.stream.startReading()
        else:
            self.stream.stopReading()

    def _close(self, reason: str) -> None:
        """Deliver what is written, then close."""
        stream = self.stream
        if stream is not None:
            stream.unregisterProducer()
            self._settle(Lost(reason))
            stream.loseConnection()

    def _settle(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._read_if_wanted()
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.callback(outcome)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            if self.stream is None:
                return
            match action:
                case Send(data=data):
                    self.stream.write(data)
                    if self._transcript is not None:
                        self._transcript.told(action.legible)
                case Heard(shown=shown):
                    if self._transcript is not None:
                        self._transcript.heard(shown)
                case StartTLS():
                    begun = self._start_tls(self.stream)
                    begun.addCallbacks(self._tls_started, self._tls_failed).addErrback(self._broken)
                case ExpireIn(limit_s=limit_s):
                    assert self._expire_in is not None
                    self._expire_in(limit_s)
                case Close(reason=reason):
                    self._close(reason)
                case Login() | Ready() | Failed():
                    self._settle(action)

    def _opened(self, _: None) -> None:
        self._perform(self._greet())

    def _tls_started(self, _: None) -> None:
        self._perform(self.dialogue.tls_started())

    def _tls_failed(self, failed: Failure) -> None:
        if not self.lost:
            distrusted = isinstance(failed.value, ssl.SSLCertVerificationError)
            self._settle(Lost(_tls_trouble(failed.value), lasting=distrusted))
        self.abort()

    def _broken(self, failed: Failure) -> None:
        """The dialogue raised an error. As in `dataReceived`, where Twisted sees to it, that ends the connection."""
        assert failed.value is not None
        log.failure("dialogue failed", failed.value, state=self.dialogue.state.name)
        self.abort()


def _tls_trouble(error: BaseException | None) -> str:
    """Why a handshake failed, without OpenSSL's file names and numbers."""
    match error:
        case ssl.SSLCertVerificationError(verify_message=message):
            return f"its certificate is not trusted ({message.rstrip('.')})"
        case ssl.SSLError(reason=reason) if reason:
            return f"TLS failed ({reason.lower().replace('_', ' ')})"
        case _:
            return f"TLS failed ({error})"
