"""Rehearsals within an office: `rehearsal.py`, at the stand-in and the practice mailbox, and its dialogue alone."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from proxy.app import rehearsal
from proxy.app.answers import DeskError
from proxy.app.recollection import Recollection
from proxy.app.rehearsal import SendingRehearsal
from proxy.demo.browser import sign_in
from proxy.demo.identity import Failure, IdentityProvider
from proxy.demo.mailbox import PracticeMailbox
from proxy.log import Log
from proxy.login import Bearer, Refusal
from proxy.protocols.dialogue import Failed, Ready, Send, StartTLS, UpstreamSettings
from proxy.protocols.smtp import SMTP
from tests.app.home import ALICE, DESK, Beside, Home, Turning
from tests.servers.child import free_port, open_folder

# --- the dialogue


def upstream(sender: str = ALICE) -> SendingRehearsal:
    """One that was let in: what comes next is the answer to MAIL."""
    login = SMTP.upstream(UpstreamSettings(Bearer(ALICE, secrets.token_urlsafe(40)), starttls=False, hostname="x.test"))
    dialogue = SendingRehearsal(login, sender)
    assert dialogue.opened() == []
    dialogue.received(b"220 hello\r\n")
    dialogue.received(b"250-hello\r\n250 AUTH XOAUTH2\r\n")
    dialogue.received(b"334 \r\n")
    return dialogue


def test_a_sender_is_offered_and_taken_back() -> None:
    dialogue = upstream()
    assert dialogue.received(b"235 2.7.0 Good\r\n") == [Send(f"MAIL FROM:<{ALICE}>\r\n".encode())]
    assert dialogue.state.name == "MAIL_SENT"
    assert dialogue.received(b"250-2.1.0 Sen") == []
    assert dialogue.received(b"der\r\n250 OK\r\n") == [Send(b"RSET\r\n")]
    assert dialogue.received(b"250 2.0.0 Reset\r\nmore") == [Ready("2.7.0 Good", ("AUTH XOAUTH2",))]
    assert dialogue.unread() == b"more"


def test_answers_that_come_all_at_once() -> None:
    actions = upstream().received(b"235 Good\r\n250 ok\r\n250 ok\r\n")
    assert [type(each) for each in actions] == [Send, Send, Ready]


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        (b"550 5.7.60 no permissions to send as this sender\r\n", Refusal.REFUSED_UPSTREAM),
        (b"432 4.3.2 Concurrent connections limit exceeded\r\n", Refusal.BUSY),
        (b"451 4.7.0 later\r\n", Refusal.TRY_LATER),
        (b"what?\r\n", Refusal.TRY_LATER),
        (b"x" * 5_000, Refusal.TRY_LATER),
    ],
)
def test_a_sender_that_is_refused(said: bytes, refusal: Refusal) -> None:
    dialogue = upstream()
    dialogue.received(b"235 Good\r\n")
    (failed,) = dialogue.received(said)
    assert isinstance(failed, Failed)
    assert failed.refusal is refusal
    assert len(failed.detail) <= 160


def test_a_login_that_is_refused_is_the_logins_own_failure() -> None:
    (failed,) = upstream().received(b"535 5.7.3 Authentication unsuccessful\r\n")
    assert isinstance(failed, Failed)
    assert failed.refusal is Refusal.REFUSED_UPSTREAM


def test_tls_is_started_by_the_login() -> None:
    login = SMTP.upstream(UpstreamSettings(Bearer(ALICE, "t" * 40), starttls=True, hostname="x.test"))
    dialogue = SendingRehearsal(login, ALICE)
    dialogue.received(b"220 x\r\n")
    dialogue.received(b"250-x\r\n250 STARTTLS\r\n")
    assert dialogue.received(b"220 go\r\n") == [StartTLS()]
    assert dialogue.tls_started() == [Send(b"EHLO x.test\r\n")]


def test_no_line_is_smuggled_into_mail_from() -> None:
    dialogue = upstream("a@b.c>\r\nDATA")
    assert dialogue.received(b"235 Good\r\n") == [Send(b"MAIL FROM:<>\r\n")]


# --- in an office


@pytest.fixture
def mailbox(identity: IdentityProvider) -> Iterator[PracticeMailbox]:
    from proxy.demo.certificates import local_certificate

    with open_folder("mf-mb-") as folder, PracticeMailbox(local_certificate(folder), identity) as made:
        made.folder = folder  # type: ignore[attr-defined]
        yield made


def write_upstreams(home: Home, ports: dict[str, int], ca_file: Path) -> None:
    home.write_main(
        "upstreams:\n"
        + "".join(
            f"  {name}: {{host: localhost, port: {port}, tls: {'starttls' if name == 'smtp' else 'implicit'}, "
            f"ca_file: {ca_file}}}\n"
            for name, port in ports.items()
        )
    )


@pytest.fixture
def office(furnished: Home, mailbox: PracticeMailbox, turning_reactor: Turning) -> Iterator[Beside]:
    write_upstreams(furnished, mailbox.ports, mailbox.folder / "ca.pem")  # type: ignore[attr-defined]
    with closing(Beside(furnished, turning_reactor)) as made:
        yield made


def ask(office: Beside, verb: str, **arguments: Any) -> dict[str, Any]:
    return office.turning.wait(lambda: office.desk.ask(verb, arguments))


def sign_alice_in(office: Beside, identity: IdentityProvider) -> None:
    begun = ask(office, "begin_code", login=ALICE, redirect_uri="http://localhost")
    came = sign_in(begun["address"], identity.ca_file)
    ask(office, "finish_code", id=begun["id"], query=dict(came.fields))


@pytest.mark.parametrize("protocol", ["imap", "pop3", "smtp"])
def test_a_good_login_by_each_protocol(office: Beside, identity: IdentityProvider, protocol: str) -> None:
    sign_alice_in(office, identity)
    answer = ask(office, "probe", login=ALICE, protocol=protocol)
    assert answer["ok"], answer
    assert answer["took_ms"] >= 0
    (row,) = [each for each in ask(office, "accounts")["accounts"] if each["login"] == ALICE]
    assert row["state"] == "connected", "a rehearsal is a login like another"


def test_what_a_token_says_and_not_the_token(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    answer = ask(office, "grant", login=ALICE)
    assert answer["ok"]
    assert answer["holder"] == ALICE
    assert answer["claims"]["user"] == ALICE
    assert "eyJ" not in json.dumps(answer)
    robot = ask(office, "grant", login=DESK)
    assert (robot["ok"], robot["holder"]) == (True, "")


def test_a_token_is_renewed_for_it(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    before = identity.requests.count(("token", "refresh_token"))
    ask(office, "grant", login=ALICE)
    assert identity.requests.count(("token", "refresh_token")) == before + 1
    ask(office, "probe", login=ALICE, protocol="imap")
    assert identity.requests.count(("token", "refresh_token")) == before + 1


def test_nobody_has_signed_in(office: Beside) -> None:
    for answer in (ask(office, "grant", login=ALICE), ask(office, "probe", login=ALICE, protocol="imap")):
        assert answer["ok"] is False
        assert (answer["step"], answer["state"], answer["who"]) == ("token", "sign_in_needed", "user")
        assert answer["remedy"] == f"Run: mailferry sign-in {ALICE}"


def test_a_sign_in_that_is_under_way(office: Beside) -> None:
    begun = ask(office, "begin_device", login=ALICE)
    answer = ask(office, "grant", login=ALICE)
    assert answer["state"] == "signing_in"
    assert begun["code"] not in json.dumps(answer)


def test_a_grant_that_is_gone(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    identity.fail(Failure.CONSENT_REQUIRED)
    answer = ask(office, "grant", login=ALICE)
    assert (answer["ok"], answer["refusal"], answer["state"]) == (False, "sign_in_needed", "sign_in_needed")
    assert "consent" in answer["cause"]
    assert f"mailferry sign-in {ALICE}" in answer["remedy"]
    assert "65001" in answer["detail"]
    assert "correlation id" in answer["trace"]


def test_a_service_that_is_down_leaves_the_token_in_hand(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    identity.fail(Failure.UNAVAILABLE)
    answer = ask(office, "grant", login=ALICE)
    assert answer["ok"]
    assert "503" in answer["unasked"]
    assert answer["claims"]["user"] == ALICE


def test_a_service_that_never_answers_is_not_waited_for(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    identity.fail(Failure.HANGS)
    with mock.patch.object(rehearsal, "TOKEN_LIMIT_S", 0.2):
        answer = ask(office, "grant", login=ALICE)
    identity.heal()
    assert answer["ok"]
    assert "within 0.2 seconds" in answer["unasked"]


def test_a_token_that_exchange_refuses(office: Beside, identity: IdentityProvider) -> None:
    sign_alice_in(office, identity)
    token = identity.issue(ALICE, scopes=("https://graph.microsoft.com/Mail.Read",))
    with mock.patch("proxy.app.rehearsal._token", return_value=None) as fake:

        async def given(*_: object, **__: object) -> Bearer:
            return Bearer(ALICE, token)

        fake.side_effect = given
        for protocol, said in (("imap", "authenticate failed"), ("pop3", "authentication failure"), ("smtp", "5.7.3")):
            answer = ask(office, "probe", login=ALICE, protocol=protocol)
            assert (answer["ok"], answer["refusal"], answer["fault"]) == (False, "refused_upstream", "exchange")
            assert said in answer["detail"].lower()
            assert token not in json.dumps(answer)
            assert answer["remedy"]
    (row,) = [each for each in ask(office, "accounts")["accounts"] if each["login"] == ALICE]
    assert row["state"] == "authentication_error"


def test_exchange_out_of_reach_and_an_exchange_that_is_silent(
    furnished: Home, identity: IdentityProvider, turning_reactor: Turning
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"imap": free_port(), "pop3": silent.getsockname()[1], "smtp": silent.getsockname()[1]}
        write_upstreams(furnished, ports, identity.ca_file)
        with (
            closing(Beside(furnished, turning_reactor)) as office,
            mock.patch.object(rehearsal, "LOGIN_LIMIT_S", 0.2),
        ):
            sign_alice_in(office, identity)
            answer = ask(office, "probe", login=ALICE, protocol="imap")
            assert (answer["step"], answer["fault"], answer["refusal"]) == ("connecting", "network", "try_later")
            assert f"localhost:{ports['imap']}" in answer["cause"]
            for protocol in ("pop3", "smtp"):
                answer = ask(office, "probe", login=ALICE, protocol=protocol)
                assert answer["fault"] == "network"
                assert "did not finish the login within 0.2 seconds" in answer["cause"]


def test_what_cannot_be_asked(office: Beside) -> None:
    with pytest.raises(DeskError, match="no protocol"):
        ask(office, "probe", login=ALICE, protocol="nntp")
    with pytest.raises(DeskError, match="no account"):
        ask(office, "grant", login="nobody@contoso.com")


def test_an_office_says_what_it_is(office: Beside) -> None:
    answer = ask(office, "about")
    assert answer["pid"] > 0
    assert 0 < answer["descriptors"]["used"] <= answer["descriptors"]["limit"]


def test_an_office_tells_its_last_warnings(office: Beside) -> None:
    assert ask(office, "warnings") == {"lines": []}
    with closing(Recollection()) as kept:
        office.desk.recollection = kept
        Log("session").error("login refused")  # commands log no less
        assert "login refused" in ask(office, "warnings")["lines"][-1]
