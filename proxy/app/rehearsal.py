"""Rehearsals: a login at Exchange as a mail program's would be, and one sender offered, but no mail read or sent.

They run inside the office that holds the tokens, so that no token leaves it; the desk's answers are plain JSON values.
What it is not: `network/mailboxes.py`, which retries and hands the session on. Here one try tells the most.
`desk.py` asks it for the doctor, `account test` and the page.
"""

from __future__ import annotations

import enum
import os
import re
import resource
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from proxy import __version__
from proxy.app.doctor.claims import read_claims
from proxy.app.office import Office
from proxy.config import Account
from proxy.config.settings import Flow, UpstreamTls
from proxy.explanations import Explanation, explain_exchange
from proxy.login import Bearer, Fault, LoginRefused, Refusal
from proxy.network.connection import Connection, Lost, Outcome
from proxy.network.dial import DialFailed, dial
from proxy.network.stream import Stream
from proxy.network.tls import ClientTls
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import (
    Action,
    Close,
    Failed,
    InputBuffer,
    LineTooLong,
    Ready,
    Send,
    Upstream,
    UpstreamSettings,
    printable,
)

TOKEN_LIMIT_S = 45.0  # Microsoft, with one repeated connect (accounts/microsoft.py)
DIAL_LIMIT_S = 10.0
LOGIN_LIMIT_S = 30.0  # from the connection to the last reply; Exchange answers within two seconds
MAX_REPLY_LINE_OCTETS = 4_096
_ADDRESS = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")  # nothing that would end the path of MAIL FROM

Answer = dict[str, Any]


# --- what the desk asks


def about() -> Answer:
    """What a daemon says of itself."""
    return {
        "pid": os.getpid(),
        "version": __version__,
        "descriptors": {
            "limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "used": len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0,
        },
    }


async def show_grant(office: Office, account: Account) -> Answer:
    """Renew the account's token, and tell what is in it. Where Microsoft cannot be asked, tell of the one in hand."""
    office.tokens.try_again(account)  # a person asks: what was refused a while ago may be mended
    unasked: LoginRefused | None = None
    try:
        bearer = await _token(office, account, fresh=True)
    except LoginRefused as refused:
        if refused.refusal is not Refusal.TRY_LATER:
            return _without_token(office, account, refused)
        unasked = refused
        try:
            bearer = await _token(office, account, fresh=False)
        except LoginRefused as again:
            return _without_token(office, account, again)
    holder = None if account.app.flow is Flow.APP_ONLY else await office.tokens.holder(account)
    answer: Answer = {"ok": True, "holder": holder.username if holder else "", "claims": read_claims(bearer.token)}
    if unasked:
        told = _without_token(office, account, unasked)
        answer |= {"unasked": told["cause"], "remedy": told["remedy"], "fault": told["fault"]}
    return answer


async def probe(office: Office, account: Account, protocol: str) -> Answer:
    """Log in by this protocol, and out again; by SMTP with MAIL FROM and RSET in between. The states hear of it."""
    began = time.monotonic()
    try:
        bearer = await _token(office, account, fresh=False, user=getattr(account, PROTOCOLS[protocol].speaks_as))
    except LoginRefused as refused:
        return _without_token(office, account, refused)
    step, outcome = await _rehearse(office, account, protocol, bearer)
    took_ms = round((time.monotonic() - began) * 1000)
    if isinstance(outcome, Ready):
        office.states.login_succeeded(account)
        return {"ok": True, "said": printable(outcome.text), "took_ms": took_ms}
    if isinstance(outcome, Failed):
        row = explain_exchange(protocol, outcome.detail).for_(
            mailbox=account.mailbox, user=account.sign_in, app=account.app.name, login=account.name
        )
        refusal, detail = outcome.refusal, outcome.detail
    else:
        row, refusal, detail = _unheard(office, account, protocol, outcome), Refusal.TRY_LATER, ""
    office.states.login_failed(account, row.refuse(account.name, refusal=refusal, detail=detail))
    return {
        "ok": False,
        "step": step,
        "refusal": refusal.value,
        "cause": row.cause,
        "remedy": row.remedy,
        "fault": row.fault.value,
        "who": row.who,
        "detail": detail,
        "took_ms": took_ms,
    }


# --- the login


async def _token(office: Office, account: Account, *, fresh: bool, user: str = "") -> Bearer:
    """Raises: LoginRefused."""
    access = office.tokens.access(account, user=user or account.sign_in, fresh=fresh)
    try:
        return await Deferred.fromCoroutine(access).addTimeout(TOKEN_LIMIT_S, office.reactor)
    except TimeoutError:
        text = f"The sign-in service gave no token within {TOKEN_LIMIT_S:g} seconds."
        raise LoginRefused(Refusal.TRY_LATER, text, fault=Fault.NETWORK) from None


async def _rehearse(office: Office, account: Account, protocol: str, bearer: Bearer) -> tuple[str, Outcome]:
    """How far it came, and what came of it."""
    server = office.config.upstream(account, protocol)
    try:
        sock = await dial(server.host, server.port, limit_s=DIAL_LIMIT_S, reactor=office.reactor)
    except DialFailed as failed:
        return "connecting", Lost(f"no connection to {failed}")
    starttls = server.tls is UpstreamTls.STARTTLS
    settings = UpstreamSettings(bearer=bearer, starttls=starttls, hostname=office.config.hostname)
    dialogue = PROTOCOLS[protocol].upstream(settings)
    if protocol == "smtp":
        dialogue = SendingRehearsal(dialogue, account.mailbox)
    tls = ClientTls()
    connection = Connection(dialogue, lambda stream: tls.start(stream, server), implicit_tls=not starttls)
    Stream(sock, office.reactor).open(connection)
    try:
        outcome = await connection.outcome().addTimeout(LOGIN_LIMIT_S, office.reactor)
    except TimeoutError:
        outcome = Lost(f"{server.host} did not finish the login within {LOGIN_LIMIT_S:g} seconds")
    step = dialogue.state.name.lower().replace("_", " ")
    if isinstance(outcome, Ready):
        connection.perform([Send(_GOODBYE[protocol]), Close("rehearsal over")])
    else:
        connection.abort()
    return step, outcome


_GOODBYE = {"imap": b"F9 LOGOUT\r\n", "pop3": b"QUIT\r\n", "smtp": b"QUIT\r\n"}


class SendingStep(enum.Enum):
    LOGIN = "login"
    MAIL_SENT = "mail_sent"
    RESET_SENT = "reset_sent"
    DONE = "done"


class SendingRehearsal:
    """SMTP's upstream, and behind its login MAIL FROM and RSET (RFC 5321 §4.1.1). Pure; a `dialogue.Upstream`."""

    def __init__(self, login: Upstream, sender: str) -> None:
        self._login = login
        self._sender = sender if _ADDRESS.fullmatch(sender) else ""
        self._step = SendingStep.LOGIN
        self._input = InputBuffer()
        self._welcome: Ready | None = None
        self._lines: list[str] = []

    @property
    def state(self) -> enum.Enum:
        return self._login.state if self._step is SendingStep.LOGIN else self._step

    def opened(self) -> list[Action]:
        return self._pursue(self._login.opened())

    def tls_started(self) -> list[Action]:
        return self._pursue(self._login.tls_started())

    def received(self, data: bytes) -> list[Action]:
        if self._step is SendingStep.LOGIN:
            return self._pursue(self._login.received(data))
        self._input.feed(data)
        return self._read()

    def unread(self) -> bytes:
        return self._input.drain()

    def _pursue(self, actions: list[Action]) -> list[Action]:
        """The login's own actions; once it is ready, the sender is offered in place of that."""
        if not actions or not isinstance(actions[-1], Ready):
            return actions
        self._welcome = actions[-1]
        self._step = SendingStep.MAIL_SENT
        self._input.feed(self._login.unread())
        return [*actions[:-1], Send(f"MAIL FROM:<{self._sender}>\r\n".encode()), *self._read()]

    def _read(self) -> list[Action]:
        actions: list[Action] = []
        try:
            while self._step is not SendingStep.DONE and (line := self._input.line(MAX_REPLY_LINE_OCTETS)) is not None:
                actions += self._hear(line.decode("ascii", "replace"))
        except LineTooLong:
            actions += self._fail("the server sent an endless line")
        return actions

    def _hear(self, line: str) -> list[Action]:
        self._lines.append(line)
        if line[3:4] == "-" and len(self._lines) < 64:  # as many as the login's own upstream takes
            return []
        said, self._lines = " ".join(self._lines), []
        if not said.startswith("2"):
            return self._fail(said)
        if self._step is SendingStep.MAIL_SENT:
            self._step = SendingStep.RESET_SENT
            return [Send(b"RSET\r\n")]
        assert self._welcome is not None
        self._step = SendingStep.DONE
        return [self._welcome]

    def _fail(self, said: str) -> list[Action]:
        detail = printable(said)
        refusal = Refusal.BUSY if re.search("432|too many|concurrent", detail, re.IGNORECASE) else Refusal.TRY_LATER
        if detail.startswith("5"):
            refusal = Refusal.REFUSED_UPSTREAM
        return [Failed(refusal, detail)]


# --- why not


def _without_token(office: Office, account: Account, refused: LoginRefused) -> Answer:
    """Why there is no token. An invitation, which may hold a device code, is not said here."""
    state = office.states.state(account).value
    cause, remedy = refused.cause, refused.remedy
    who = refused.who or ("nobody" if refused.refusal is Refusal.TRY_LATER else "operator")
    if state == "sign_in_needed":
        cause = cause if refused.detail else f"Nobody has signed in to Microsoft for {account.name} yet."
        if f"mailferry sign-in {account.name}" not in remedy:
            remedy = f"Run: mailferry sign-in {account.name}" + (f" ({remedy})" if remedy else "")
        who = "user"
    return {
        "ok": False,
        "step": "token",
        "refusal": refused.refusal.value,
        "state": state,
        "cause": cause,
        "remedy": remedy or _USUAL_REMEDY.get(refused.refusal, "See `mailferry account show`, and the daemon's log."),
        "fault": refused.fault.value,
        "who": who,
        "detail": printable(refused.detail, 300),
        "trace": refused.trace.sentence,
    }


_USUAL_REMEDY = {
    Refusal.TRY_LATER: "Nothing to do: it is tried again. If it stays, look at the way to the sign-in service."
}


def _unheard(office: Office, account: Account, protocol: str, outcome: Outcome) -> Explanation:
    server = office.config.upstream(account, protocol)
    reason = outcome.reason if isinstance(outcome, Lost) else "it said nothing"
    cause = f"The connection to {server.host}:{server.port} did not come about: {reason}."
    remedy = "Nothing is wrong with the password. `mailferry doctor` looks at the way there."
    return Explanation(cause, remedy, Fault.NETWORK, "operator", Refusal.TRY_LATER)
