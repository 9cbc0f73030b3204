"""What a log may have of a dialogue: enough to see what went wrong, and never a secret (tests of legible.py)."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.login import Bearer, Fault, LoginRefused, Refusal
from proxy.protocols import PROTOCOLS, legible
from proxy.protocols.dialogue import STOPPING, Action, Front, FrontSettings, Heard, Ready, Send, UpstreamSettings

SETTINGS = FrontSettings(
    hostname="mail.test", offers_tls=True, tls_active=False, requires_tls=False, defers_failures=True, watched=True
)
PASSWORD = b"Pa55-word-of-alice"
PLAIN = base64.b64encode(b"\0alice\0" + PASSWORD)
CODE = "CODE4YOU9"
INVITED = LoginRefused(Refusal.SIGN_IN_NEEDED, "Sign in.", fault=Fault.CLIENT, invitation=f"Enter {CODE}.")
TOKEN = "a-token-that-is-quite-long-and-secret"
UPSTREAM = UpstreamSettings(Bearer("u@example.com", TOKEN), starttls=False, hostname="mail.test", watched=True)
LOGINS = {
    "imap": b"a LOGIN alice " + PASSWORD,
    "pop3": b"USER alice\r\nPASS " + PASSWORD,
    "smtp": b"AUTH PLAIN " + PLAIN,
}


def front(protocol: str, **keys: bool) -> Front:
    made = PROTOCOLS[protocol].front(replace(SETTINGS, **keys))  # type: ignore[arg-type]
    made.opened()
    return made


def shown(actions: list[Action]) -> list[str]:
    """All that a log would have."""
    said = [a.shown if isinstance(a, Heard) else a.legible.decode() for a in actions if isinstance(a, Heard | Send)]
    return [line.rstrip() for line in said]


def heard(actions: list[Action]) -> list[str]:
    return [action.shown for action in actions if isinstance(action, Heard)]


@pytest.mark.parametrize(
    ("protocol", "said", "expected"),
    [
        ("imap", b"a LOGIN alice " + PASSWORD, ["a LOGIN alice <secret>"]),
        ("imap", b'a LOGIN "al ice" "' + PASSWORD + b'"', ["a LOGIN al ice <secret>"]),
        ("imap", b"a LOGIN alice two words", ["a LOGIN <3 arguments>"]),
        ("imap", b"a LOGIN {5}", ["a LOGIN <a literal>"]),
        ("imap", b"LOGIN alice " + PASSWORD, ["<no command>"]),
        ("imap", PASSWORD, ["<no command>"]),
        ("imap", b"a " + PASSWORD, ["<no command>"]),
        ("imap", b"a " + PASSWORD + b" {3}", ["<no command>"]),
        ("imap", b"", [""]),
        ("imap", b"a AUTHENTICATE PLAIN " + PLAIN, ["a AUTHENTICATE PLAIN <secret>"]),
        ("imap", b"a AUTHENTICATE " + PASSWORD, ["a AUTHENTICATE <no mechanism>"]),
        ("imap", b"a AUTHENTICATE PLAIN\r\n" + PLAIN, ["a AUTHENTICATE PLAIN", "<secret>"]),
        ("imap", b"a AUTHENTICATE PLAIN\r\n*", ["a AUTHENTICATE PLAIN", "*"]),
        ("imap", b'a ID ("name" "Old Mail")', ["a ID ( name Old Mail )"]),
        ("imap", b"a ID (", ["a ID <1 arguments>"]),
        ("imap", b"a CAPABILITY", ["a CAPABILITY"]),
        ("imap", b"a SELECT inbox", ["a SELECT <1 arguments>"]),
        ("pop3", b"USER alice", ["USER alice"]),
        ("pop3", b"USER alice\r\nPASS " + PASSWORD, ["USER alice", "PASS <secret>"]),
        ("pop3", b"APOP alice " + PASSWORD, ["APOP <secret>"]),
        ("pop3", b"AUTH PLAIN " + PLAIN, ["AUTH PLAIN <secret>"]),
        ("pop3", b"AUTH LOGIN\r\nYWxpY2U=", ["AUTH LOGIN", "<secret>"]),
        ("pop3", b"AUTH ", ["AUTH"]),
        ("pop3", b"AUTH  ", ["AUTH <no mechanism>"]),
        ("pop3", b"RETR 7", ["RETR ..."]),
        ("pop3", PASSWORD, ["<no command>"]),
        ("smtp", b"EHLO their.host", ["EHLO their.host"]),
        ("smtp", b"AUTH PLAIN " + PLAIN, ["AUTH PLAIN <secret>"]),
        ("smtp", b"AUTH XOAUTH2 " + PLAIN, ["AUTH XOAUTH2 <secret>"]),
        ("smtp", b"AUTH LOGIN\r\nYWxpY2U=", ["AUTH LOGIN", "<secret>"]),
        ("smtp", b"AUTH " + PASSWORD, ["AUTH <no mechanism>"]),
        ("smtp", b"MAIL FROM:<alice@example.com>", ["MAIL ..."]),
        ("smtp", b"QUIT", ["QUIT"]),
        ("smtp", PASSWORD, ["<no command>"]),
    ],
)
def test_what_a_mail_program_said(protocol: str, said: bytes, expected: list[str]) -> None:
    assert heard(front(protocol).received(said + b"\r\n")) == expected


@pytest.mark.parametrize("protocol", LOGINS)
def test_nothing_is_shown_that_nobody_watches(protocol: str) -> None:
    said = front(protocol, watched=False).received(LOGINS[protocol] + b"\r\n")
    assert heard(said) == []


def test_a_name_is_not_shown_where_it_may_be_of_a_mail() -> None:
    smtp = front("smtp")
    smtp.received(LOGINS["smtp"] + b"\r\n")
    smtp.refuse(INVITED)
    assert smtp.state.name == "DEFERRED"
    assert heard(smtp.received(b"EHLO dear Bob\r\n")) == ["EHLO ..."]


@pytest.mark.parametrize("defers", [True, False])
@pytest.mark.parametrize("protocol", LOGINS)
def test_a_device_code_is_told_and_never_shown(protocol: str, defers: bool) -> None:
    """At once, at the next command, and at the end."""
    dialogue = front(protocol, defers_failures=defers)
    said = dialogue.received(LOGINS[protocol] + b"\r\n")
    said += dialogue.refuse(INVITED)
    if defers:
        next_one = {"imap": b"b SELECT inbox\r\n", "pop3": b"STAT\r\n", "smtp": b"EHLO x\r\nMAIL FROM:<a@b>\r\n"}[
            protocol
        ]
        said += dialogue.received(next_one)
        if dialogue.state.name == "AUTHENTICATING":
            said += dialogue.refuse(INVITED)
    assert CODE in "".join(action.data.decode() for action in said if isinstance(action, Send))
    said += dialogue.dismissed(STOPPING)
    assert CODE not in "".join(shown(said)) + repr(said)
    assert "<secret> Sign in." in "".join(shown(said))


@pytest.mark.parametrize("protocol", LOGINS)
def test_a_code_in_place_of_the_greeting_is_not_shown(protocol: str) -> None:
    dialogue = PROTOCOLS[protocol].front(SETTINGS)
    assert CODE not in "".join(shown(dialogue.refuse(INVITED, final=True)))
    dialogue = front(protocol)
    dialogue.received(LOGINS[protocol] + b"\r\n")
    assert CODE not in "".join(shown(dialogue.refuse(INVITED, final=True)))


@pytest.mark.parametrize("protocol", LOGINS)
def test_who_is_dismissed_hears_why(protocol: str) -> None:
    *_, last = shown(front(protocol).dismissed(STOPPING))
    assert last.startswith({"imap": "* BYE ", "pop3": "-ERR ", "smtp": "421 "}[protocol])
    assert STOPPING.text in last


@pytest.mark.parametrize(("protocol", "told"), [("imap", ["* BYE Sign in."]), ("pop3", [])])
def test_a_deferred_login_is_dismissed_with_its_reason(protocol: str, told: list[str]) -> None:
    dialogue = front(protocol)
    dialogue.received(LOGINS[protocol] + b"\r\n")
    dialogue.refuse(LoginRefused(Refusal.SIGN_IN_NEEDED, "Sign in.", fault=Fault.CLIENT))
    assert shown(dialogue.dismissed(STOPPING)) == told


GREETINGS = {
    "imap": b"* OK ready\r\n+ %\r\nF2 NO it was %\r\n",
    "pop3": b"+OK ready\r\n+ \r\n+OK it was %\r\n",
    "smtp": b"220 ready\r\n250-mx\r\n250 AUTH XOAUTH2\r\n334 \r\n535 it was %\r\n",
}


@pytest.mark.parametrize("protocol", GREETINGS)
def test_a_token_is_not_shown_on_its_way_nor_where_it_is_echoed(protocol: str) -> None:
    login = PROTOCOLS[protocol].upstream(UPSTREAM)
    said = login.opened()
    for line in GREETINGS[protocol].replace(b"%", TOKEN.encode()).splitlines(keepends=True):
        said += login.received(line)
    text = "\n".join(shown(said))
    assert any(TOKEN.encode() in base64.b64decode(a.data.split()[-1]) for a in said if isinstance(a, Send) and a.secret)
    assert "<secret>" in text
    assert "it was ..." in text
    assert TOKEN not in text
    assert base64.b64encode(TOKEN.encode()).decode()[:-4] not in text
    assert login.received(b"") == []


WORDS = st.sampled_from(
    [
        *(
            b"a ",
            b"LOGIN ",
            b"AUTHENTICATE ",
            b"PLAIN ",
            b"USER ",
            b"PASS ",
            b"AUTH ",
            b"APOP ",
            b"alice ",
            b"ID (",
            b'"',
        ),
        *(PASSWORD, PASSWORD + b" ", PLAIN, b"\r\n", b"\n", b"*\r\n", b"{18}\r\n", b"{18+}\r\n", b"EHLO x\r\n", b"= "),
    ]
)


@given(protocol=st.sampled_from(sorted(LOGINS)), words=st.lists(WORDS, max_size=12))
def test_watching_changes_nothing_and_shows_no_password(protocol: str, words: list[bytes]) -> None:
    """A password that stands where a password belongs, or where nothing is known to belong."""
    watched, unwatched = front(protocol), front(protocol, watched=False)
    said = watched.received(b"".join(words) + b"\r\n")
    assert [action for action in said if not isinstance(action, Heard)] == unwatched.received(b"".join(words) + b"\r\n")
    lines = [
        line
        for line in heard(said)
        if line.split(" ", 1)[0].upper() not in ("USER", "EHLO") and " LOGIN " not in line and " ID (" not in line
    ]
    assert PASSWORD.decode() not in "".join(line.split(" ", 1)[-1] for line in lines)
    assert PLAIN.decode() not in "".join(line.split(" ", 1)[-1] for line in lines)


def test_a_refusal_without_an_invitation_is_shown_as_it_is() -> None:
    assert legible.told(LoginRefused(Refusal.BUSY, "Too many.", fault=Fault.CLIENT)) == "Too many."
    assert legible.send("x\r\n", "x\r\n") == Send(b"x\r\n")
    accepted = front("imap")
    accepted.received(b"a LOGIN alice x\r\n")
    assert shown(accepted.accept(Ready("In.")))[0] == "a OK In."
