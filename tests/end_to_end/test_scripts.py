"""The wire scripts of `tests/dialogues` on sockets: against the running daemon, with a scripted Exchange behind it.

What a script's `session:` lines say is brought about for real: wrong pairs are wrong, Exchange refuses, the account is
signed out. The text of a refusal is then the daemon's own; all else on the wire is as in the script, octet for octet.
All scripts are played at once, before the first test; each test then tells how its own ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from proxy.login import Bearer, Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS
from proxy.protocols.dialogue import Action, Close, Failed, Front, Ready, Send, StartTLS, printable
from proxy.protocols.sasl import xoauth2
from tests.end_to_end.exchange import Verdict, Wire
from tests.end_to_end.stage import LOOPBACK, Door, Mailbox, Stage, log_in
from tests.end_to_end.staged import Act, account, is_right, is_wrong, staged
from tests.protocols.scripts import BEARER, Refuse, Script, scripts
from tests.servers.mailhost import DOMAIN

SCRIPTS = scripts()
FRONTS = [script for script in SCRIPTS if script.side == "front"]
UPSTREAMS = [script for script in SCRIPTS if script.side == "upstream"]
U = account(FRONTS)
SOME_TEXT = "some text"
TRIES = {
    Refusal.BAD_CREDENTIALS: 0,
    Refusal.SIGN_IN_NEEDED: 0,
    Refusal.TRY_LATER: 2,  # once more after a pause
    Refusal.REFUSED_UPSTREAM: 2,  # once more with a fresh token
    Refusal.BUSY: 1,
    Refusal.MISCONFIGURED: 1,
}
"""How often the daemon connects to Exchange before the mail program is refused so."""

PLAYED_IN_PART = {
    "pop3-case-64-refusals": ["where TLS is missing the front asks for no login", "it takes fifteen wrong passwords"],
    "smtp-case-50-honest": ["where TLS is missing the front asks for no login"],
    "smtp-case-57-refused": ["an implicit account has no password"],
}
"""Of the cases of CLIENTS 6, those of which a daemon cannot be brought to every line, and what is in the way."""

Results = Mapping[str, Future[None]]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """How each script ends that is to be tested now."""
    folder = tmp_path_factory.mktemp("stages")
    tested = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [script for script in SCRIPTS if f"test_on_the_daemon[{script.test_id}]" in {item.name for item in tested}]
    implicit = [script for script in UPSTREAMS if not script.upstream_settings.starttls]
    starttls = [script for script in UPSTREAMS if script.upstream_settings.starttls]
    doors = {Door.of(script.protocol, script.front_settings) for script in FRONTS}
    stages = [
        Stage(folder / "starttls", doors, [U, *map(_mailbox, starttls)], starttls=True),
        Stage(folder / "implicit", [], [*map(_mailbox, implicit)], starttls=False),
    ]
    with ExitStack() as stack:
        for stage in stages:
            stack.push(stage)
        pool = stack.enter_context(
            ThreadPoolExecutor(max(len(stages), len(chosen)))
        )  # most of them wait, most of the time
        for opened in [pool.submit(stage.__enter__) for stage in stages]:
            opened.result()
        futures = {}
        for script in chosen:
            address = str(LOOPBACK + 1 + SCRIPTS.index(script))
            stage = stages[script in implicit]
            play = _play_front if script.side == "front" else _play_upstream
            futures[script.name] = pool.submit(play, script, stage, address)
        yield futures


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.test_id)
def test_on_the_daemon(script: Script, results: Results) -> None:
    results[script.name].result()


def test_every_case_is_played() -> None:
    """An upstream's script always is, as a whole."""
    cases = {script.name: staged(script) for script in FRONTS if re.search(r"-case-\d\d-", script.name)}
    assert all(len(case.acts) > len(case.left_out) for case in cases.values())
    assert {name: case.left_out for name, case in cases.items() if case.left_out} == PLAYED_IN_PART


def test_what_a_script_calls_wrong_is_wrong() -> None:
    """No daemon can call one pair wrong and right on the same connection."""
    acts = [(script.name, act) for script in FRONTS for act in staged(script).acts]
    logins = [(name, login) for name, act in acts for login in zip(act.logins, act.answers, strict=True)]
    wrong = [(name, credentials) for name, (credentials, answer) in logins if credentials and is_wrong(answer)]
    assert [name for name, credentials in wrong if is_right(credentials, U)] == []


# A front's script: we are the mail program


def _play_front(script: Script, stage: Stage, address: str) -> None:
    greeting, *acts = staged(script).acts
    with ExitStack() as stack:
        with stage.turn(script.protocol):
            stage.teach(script.protocol, script.front_settings.learnt)
            wire = stage.connect(Door.of(script.protocol, script.front_settings), address)
            stack.enter_context(closing(wire))
            _hear(wire, greeting, script)
        for number, act in enumerate(acts, 1):
            _perform(wire, act, acts[number:], script, stage)
            if act.accepted or any(isinstance(action, Close) for action in act.actions):
                return
        assert wire.goodbye() == b""


def _perform(wire: Wire, act: Act, later: Sequence[Act], script: Script, stage: Stage) -> None:
    """Send, and hear what comes of it; Exchange and the person do what is needed for that.

    What is sent behind a login that holds is Exchange's, with all that comes later in the script.
    """
    verdicts = [verdict for answer in act.answers for verdict in _verdicts(answer)]
    with ExitStack() as stack:
        if any(isinstance(a, Refuse) and a.refused.refusal is Refusal.SIGN_IN_NEEDED for a in act.answers):
            stack.enter_context(stage.turn(*PROTOCOLS))
            stage.sign_out(U)
            stack.callback(stage.sign_in, U)
        elif verdicts:
            stack.enter_context(stage.turn(script.protocol))
        sessions = stage.exchange.perform(script.protocol, [stage.part(script.protocol, v) for v in verdicts])
        for piece in act.inputs:
            wire.send(piece)
        _hear(wire, act, script)
        if act.accepted:
            for piece in (piece for further in later for piece in further.inputs):
                wire.send(piece)
            assert wire.goodbye() == b""
    behind_the_login = b"".join(session.result() for session in sessions)
    assert behind_the_login == (script.unread if act.accepted else b"")


def _verdicts(answer: Ready | Refuse) -> list[Verdict]:
    """What Exchange says on each connection until the daemon has this answer."""
    if isinstance(answer, Ready):
        return [answer]
    return [answer.refused.refusal] * TRIES[answer.refused.refusal]


def _hear(wire: Wire, act: Act, script: Script) -> None:
    """What the script says comes next; the texts of refusals are the daemon's own."""
    free = [printable(answer.refused.text) for answer in script.answers if isinstance(answer, Refuse)]
    for action in act.actions:
        match action:
            case Send(data):
                wire.expect(data, free=free)
            case StartTLS():
                wire.start_tls()
            case Close():
                assert wire.rest() == b""
            case _:
                pass  # the daemon's own affair


# An upstream's script: we are Exchange, and a mail program that logs in


def _mailbox(script: Script) -> Mailbox:
    """Each has one of its own, so that a throttled one is in nobody's way; by SMTP Exchange counts for each holder."""
    end = _end(script)
    throttled = script.protocol == "smtp" and isinstance(end, Failed) and end.refusal is Refusal.BUSY
    holder = script.name if throttled else script.protocol
    return Mailbox((script.name,), ("p",), f"{script.name}@{DOMAIN}", f"{holder}@{DOMAIN}")


def _play_upstream(script: Script, stage: Stage, address: str) -> None:
    end = _end(script)
    lets_in = isinstance(end, Ready) or TRIES[end.refusal] > 1
    front = PROTOCOLS[script.protocol].front(script.front_settings)
    front.opened()
    with stage.turn(script.protocol):
        stage.unknown(script.protocol)
        parts = [lambda wire: _play_exchange(script, wire, stage.bearer(_mailbox(script), script.protocol))]
        if isinstance(end, Failed) and lets_in:
            parts.append(stage.part(script.protocol, Ready("")))
        sessions = stage.exchange.perform(script.protocol, parts)
        with closing(stage.connect(Door(script.protocol), address)) as wire:
            wire.line()
            front.received(log_in(wire, script.protocol, _mailbox(script)))
            wire.expect(_reply(front, end), free=[SOME_TEXT])
            assert wire.goodbye() == script.unread
    assert [session.result() for session in sessions] == [b""] * len(parts)
    refusals = stage.upstream_refusals(address)
    assert [words for words in refusals if words in _logged(end)] == refusals
    assert len(refusals) == isinstance(end, Failed)


def _end(script: Script) -> Ready | Failed:
    """Where it leads to."""
    (end,) = [a for exchange in script.exchanges for a in exchange.actions if isinstance(a, Ready | Failed)]
    return end


def _reply(front: Front, end: Ready | Failed) -> bytes:
    """What the front says to its mail program then."""
    if isinstance(end, Failed) and TRIES[end.refusal] == 1:
        actions: Sequence[Action] = front.refuse(LoginRefused(end.refusal, SOME_TEXT, fault=Fault.EXCHANGE))
    else:
        actions = front.accept(end if isinstance(end, Ready) else Ready(""))
    return b"".join(action.data for action in actions if isinstance(action, Send))


def _logged(end: Ready | Failed) -> list[str]:
    """How the log tells a refusal: its detail stands in quotes if need be."""
    if isinstance(end, Ready):
        return []
    return [f"{end.refusal.value} detail={detail}" for detail in (end.detail, json.dumps(end.detail))]


def _play_exchange(script: Script, wire: Wire, bearer: Bearer) -> bytes:
    for exchange in script.exchanges:
        pieces = [piece for piece in exchange.inputs if isinstance(piece, bytes)]
        wire.send(_with_token(b"".join(pieces), bearer))
        for action in exchange.actions:
            match action:
                case Send(data):
                    wire.expect(_with_token(data, bearer))
                case StartTLS():
                    wire.start_tls()
                case _:
                    pass
    return wire.rest()


def _with_token(octets: bytes, bearer: Bearer) -> bytes:
    """With the real token in place of the script's, also where a literal holds it."""
    token = bearer.token.encode()
    octets = octets.replace(b"{%d}\r\nTOKEN" % len(BEARER.token), b"{%d}\r\nTOKEN" % len(token))
    return octets.replace(xoauth2(BEARER), xoauth2(bearer)).replace(b"TOKEN", token)
