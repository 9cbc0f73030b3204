"""What of a front's wire script can be played on a daemon, and with which account. Not a test.

In a script the session answers as it likes. On a daemon each answer must have its cause, and some have none that a test
can bring about: `staged` leaves these out, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from proxy.login import Credentials, LoginRefused, Refusal
from proxy.protocols.dialogue import Action, ExpireIn, Login, Ready
from tests.end_to_end.stage import Mailbox
from tests.protocols.scripts import Answer, Exchange, Expired, Refuse, Script, Slow
from tests.servers.mailhost import DOMAIN

WRONG_PAIRS = 3  # distinct ones; the last is final (CLIENTS case 39)


@dataclass(frozen=True, slots=True)
class Act:
    """A piece of a script: what the mail program sends, what comes of it, and the session's answer to each Login."""

    inputs: list[bytes]
    actions: list[Action]
    answers: list[Ready | Refuse]

    @property
    def logins(self) -> list[Credentials | None]:
        return _logins(self.actions)

    @property
    def accepted(self) -> bool:
        return any(isinstance(answer, Ready) for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Staged:
    acts: list[Act]
    left_out: list[str]
    """Why an act is missing; or all from there on, where what follows would make no sense without it."""


def staged(script: Script) -> Staged:
    result = Staged([], [])
    answers, past = iter(script.answers), _Past()
    for exchange in script.exchanges:
        given = [next(answers) for _ in _logins(exchange.actions)]
        obstacle = past.obstacle(exchange, given)
        if obstacle is None:
            pieces = [piece for piece in exchange.inputs if isinstance(piece, bytes)]
            result.acts.append(Act(pieces, exchange.actions, [a for a in given if not isinstance(a, Slow)]))
        else:
            result.left_out.append(obstacle.why)
            if obstacle.is_the_end:
                break
    return result


@dataclass(frozen=True, slots=True)
class _Obstacle:
    why: str
    is_the_end: bool = True


@dataclass(slots=True)
class _Past:
    """What has happened on the connection."""

    expires_soon: bool = False
    right: set[Credentials] = field(default_factory=set)
    wrong: set[Credentials] = field(default_factory=set)

    def obstacle(self, exchange: Exchange, answers: Sequence[Answer]) -> _Obstacle | None:
        """Why this cannot be played; None: it happens, and belongs to the past from now on."""
        if Expired() in exchange.inputs and not self.expires_soon:
            return _Obstacle("the time for logging in is three minutes")
        for credentials, answer in zip(_logins(exchange.actions), answers, strict=True):
            obstacle = self._impossible(credentials, answer)
            if obstacle is not None:
                return obstacle
        self.expires_soon |= any(isinstance(action, ExpireIn) for action in exchange.actions)
        return None

    def _impossible(self, credentials: Credentials | None, answer: Answer) -> _Obstacle | None:
        match answer:
            case Slow():
                return _Obstacle("Exchange would have to take ten seconds")
            case Refuse(LoginRefused(refusal=Refusal.TLS_NEEDED)):
                return _Obstacle("where TLS is missing the front asks for no login", is_the_end=False)
            case Refuse(LoginRefused(refusal=Refusal.TOO_MANY_ATTEMPTS)):
                return _Obstacle("it takes fifteen wrong passwords")
            case Refuse(LoginRefused(refusal=Refusal.BAD_CREDENTIALS), final):
                if credentials is None:
                    return _Obstacle("an implicit account has no password", is_the_end=False)
                if credentials in self.right:
                    return _Obstacle("no password becomes wrong while a connection is open")
                self.wrong.add(credentials)
                if final != (len(self.wrong) == WRONG_PAIRS):
                    return _Obstacle("the third wrong pair is final, and no other")
            case Refuse(final=True):
                return _Obstacle("only wrong passwords are final")
            case _ if credentials is not None:
                self.right.add(credentials)
            case _:
                pass
        return None


def _logins(actions: Sequence[Action]) -> list[Credentials | None]:
    return [action.credentials for action in actions if isinstance(action, Login)]


# The account


def account(scripts: Sequence[Script]) -> Mailbox:
    """The one that has every login and password which some script's session does not call wrong."""
    right = list(_right(scripts))
    pairs = [_texts(credentials) for credentials in right]
    may_open = [credentials.authorization_id.decode() for credentials in right if credentials.authorization_id]
    logins = dict.fromkeys(["u", *(login for login, _ in pairs), *may_open])
    passwords = dict.fromkeys(["p", *(password for _, password in pairs)])
    return Mailbox(tuple(logins), tuple(passwords), f"u@{DOMAIN}", f"u@{DOMAIN}")


def _right(scripts: Sequence[Script]) -> Iterator[Credentials]:
    for act in (act for script in scripts for act in staged(script).acts):
        for credentials, answer in zip(act.logins, act.answers, strict=True):
            if credentials is not None and not is_wrong(answer):
                yield credentials


def is_wrong(answer: Ready | Refuse) -> bool:
    return isinstance(answer, Refuse) and answer.refused.refusal is Refusal.BAD_CREDENTIALS


def _texts(credentials: Credentials) -> tuple[str, str]:
    """Login and password as they are meant: old programs send Windows' code page (CLIENTS 1.2)."""
    login, password = credentials.verbatim or (credentials.login, credentials.password)
    try:
        return login.decode(), password.decode()
    except UnicodeDecodeError:
        return login.decode("cp1252"), password.decode("cp1252")


def is_right(credentials: Credentials, owner: Mailbox) -> bool:
    login, password = _texts(credentials)
    may_open = credentials.authorization_id.decode() in ("", *owner.logins)
    return login in owner.logins and password in owner.passwords and may_open
