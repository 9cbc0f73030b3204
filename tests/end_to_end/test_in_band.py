"""Sign-in in band, on the running daemon: the mail program hears a code, a person enters it, the next login works.

The programs are the standard library's; what they hear is what a person sees.
"""

from __future__ import annotations

import re
import smtplib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proxy.demo.doors import DEVICE_CODE
from proxy.demo.grants import DEVICE_LIFETIME_S
from proxy.demo.identity import EVERYWHERE, Failure
from tests.end_to_end import refused
from tests.end_to_end.ferry import USER_CODE, Ferry
from tests.servers.child import wait_until
from tests.servers.mailhost import MailHost, Person

SIGNED_IN_DEADLINE_S = 20.0  # the stand-in is polled every second
SHORT_LIFE_S = 4


@pytest.fixture
def unsigned(ferry: Ferry) -> Person:
    """Somebody with an account, and nobody has signed in."""
    person = ferry.host.new_person()
    ferry.account_add(person)
    return person


@pytest.fixture(scope="module")
def honest_ferry(mail_host: MailHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ferry]:
    """A daemon that tells SMTP programs at AUTH what others hear at MAIL."""
    with closing(Ferry(tmp_path_factory.mktemp("honest"), mail_host)) as ferry:
        text = ferry.config.read_text()
        smtp = f"{{protocol: smtp, address: localhost, port: {ferry.ports['smtp']}, tls: auto"
        assert smtp in text
        ferry.config.write_text(text.replace(smtp, f"{smtp}, auth_failures: honest"))
        ferry.app_add()
        ferry.serve()
        yield ferry


def code_in(said: str, ferry: Ferry) -> str:
    """The code, which stands behind the address where a person can enter it."""
    assert f"Sign in at {ferry.host.identity.base}/devicelogin with code " in said
    (code,) = set(re.findall(USER_CODE, said))
    return str(code)


def heard(ferry: Ferry, person: Person, protocol: str) -> str:
    say: Callable[[Ferry, str, str], str] = {"imap": refused.imap, "pop3": refused.pop3, "smtp": refused.smtp}[protocol]
    return say(ferry, person.upn, ferry.passwords[person.upn])


def enter(ferry: Ferry, code: str, person: Person) -> None:
    """The person types the code into the sign-in service's page, and mailferry learns of it."""
    ferry.host.identity.approve_device(code, person.upn)


def signs_in(ferry: Ferry, code: str, person: Person) -> None:
    enter(ferry, code, person)
    wait_until(
        "mailferry has the grant", lambda: ferry.log_lines("  signed in identity=", person.upn), SIGNED_IN_DEADLINE_S
    )


def written_down(ferry: Ferry, code: str) -> list[str]:
    """The files of mailferry's that hold the code; a command that a person asked for it may show it."""
    return [file.name for file in ferry.folder.rglob("*") if file.is_file() and code.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("protocol", "answer"), [("imap", "[UNAVAILABLE] "), ("pop3", "-ERR [SYS/TEMP] "), ("smtp", "451 4.7.0 ")]
)
def test_the_refusal_carries_a_code_and_whoever_enters_it_is_signed_in(
    ferry: Ferry, unsigned: Person, protocol: str, answer: str
) -> None:
    said = heard(ferry, unsigned, protocol)
    assert said.startswith(f"{answer}Sign in at https://")
    assert f"mailferry sign-in {unsigned.upn}" in said, "there is another way as well"
    code = code_in(said, ferry)
    assert ferry.state(unsigned) == "sign_in_needed"
    signs_in(ferry, code, unsigned)
    assert ferry.logs_in(unsigned)
    assert ferry.state(unsigned) == "connected"
    assert written_down(ferry, code) == []


def test_an_honest_smtp_listener_says_it_at_auth(honest_ferry: Ferry) -> None:
    person = honest_ferry.host.new_person()
    honest_ferry.account_add(person)
    said = heard(honest_ferry, person, "smtp")
    assert said.startswith("454 4.7.0 Sign in at https://")
    code = code_in(said, honest_ferry)
    signs_in(honest_ferry, code, person)
    with smtplib.SMTP("localhost", honest_ferry.ports["smtp"], timeout=refused.TIMEOUT_S) as client:
        client.login(person.upn, honest_ferry.passwords[person.upn])
        client.sendmail(person.upn, [person.upn], b"Subject: in band\r\n\r\nIt works.\r\n")
    assert b"It works." in honest_ferry.host.delivered(person)[-1]
    assert written_down(honest_ferry, code) == []


def test_a_deferred_smtp_session_goes_on_once_its_code_was_entered(ferry: Ferry, unsigned: Person) -> None:
    with smtplib.SMTP("localhost", ferry.ports["smtp"], timeout=refused.TIMEOUT_S) as client:
        client.login(unsigned.upn, ferry.passwords[unsigned.upn])
        reply, text = client.mail(unsigned.upn)
        assert reply == 451
        signs_in(ferry, code_in(text.decode(), ferry), unsigned)
        client.sendmail(unsigned.upn, [unsigned.upn], b"Subject: deferred\r\n\r\nIt works.\r\n")
    assert b"It works." in ferry.host.delivered(unsigned)[-1]


def test_all_programs_of_an_account_get_the_same_code(ferry: Ferry, unsigned: Person) -> None:
    """At once, then one after the other, and by command: Microsoft is asked once."""
    before = _codes_asked_for(ferry)
    said: list[str] = []
    protocols = ("imap", "pop3", "smtp", "imap")
    programs = [
        threading.Thread(target=lambda protocol=protocol: said.append(heard(ferry, unsigned, protocol)))
        for protocol in protocols
    ]
    for program in programs:
        program.start()
    for program in programs:
        program.join(refused.TIMEOUT_S)
    said += [heard(ferry, unsigned, protocol) for protocol in protocols]
    assert len(said) == 2 * len(protocols)
    (code,) = {code_in(each, ferry) for each in said}
    command = ferry.start("sign-in", unsigned.upn, "--device")
    assert command.read(USER_CODE) == code
    assert _codes_asked_for(ferry) - before == 1
    enter(ferry, code, unsigned)
    assert "Signed in" in command.end(0).output
    assert ferry.logs_in(unsigned)


def test_another_person_at_the_code_is_told_so_in_the_next_refusal(ferry: Ferry, unsigned: Person) -> None:
    other = ferry.host.new_person()
    code = code_in(heard(ferry, unsigned, "imap"), ferry)
    enter(ferry, code, other)
    wait_until("mailferry has seen who", lambda: ferry.log_lines("another person signed in", unsigned.upn))
    said = heard(ferry, unsigned, "imap")
    assert code_in(said, ferry) != code
    assert f"signed in to Microsoft as {other.upn}" in said
    assert ferry.state(unsigned) == "sign_in_needed"
    signs_in(ferry, code_in(said, ferry), unsigned)
    assert ferry.logs_in(unsigned)


def test_who_declines_is_offered_another_code(ferry: Ferry, unsigned: Person) -> None:
    code = code_in(heard(ferry, unsigned, "pop3"), ferry)
    ferry.host.identity.deny_device(code)
    wait_until("mailferry has seen it", lambda: ferry.log_lines("sign-in refused", unsigned.upn))
    said = heard(ferry, unsigned, "pop3")
    assert code_in(said, ferry) != code
    assert "Last time: " in said


def test_a_revoked_sign_in_is_mended_in_band(ferry: Ferry) -> None:
    person = ferry.ready_account()
    assert ferry.logs_in(person)
    ferry.run("sign-out", person.upn)
    signs_out_and_in = len(ferry.log_lines("  signed in identity=", person.upn))
    code = code_in(heard(ferry, person, "imap"), ferry)
    enter(ferry, code, person)
    wait_until(
        "the grant is there", lambda: len(ferry.log_lines("  signed in identity=", person.upn)) > signs_out_and_in
    )
    assert ferry.logs_in(person)


def test_a_wrong_password_hears_of_no_code(ferry: Ferry, unsigned: Person) -> None:
    before = _codes_asked_for(ferry)
    said = (refused.imap(ferry, unsigned.upn, "wrong"), refused.smtp(ferry, unsigned.upn, "wrong"))
    assert not any(re.search(USER_CODE, each) or "devicelogin" in each for each in said)
    heard(ferry, unsigned, "imap")
    assert "devicelogin" not in refused.pop3(ferry, unsigned.upn, "wrong")
    assert _codes_asked_for(ferry) - before == 1


def test_while_no_code_can_be_had_the_refusal_comes_without_one(ferry: Ferry, unsigned: Person) -> None:
    identity = ferry.host.identity
    before = _codes_asked_for(ferry)
    identity.fail(Failure.UNAVAILABLE, at=EVERYWHERE)
    try:
        said = [heard(ferry, unsigned, "imap") for _ in range(3)]
    finally:
        identity.heal()
    assert all(each.startswith("[UNAVAILABLE]") and f"mailferry sign-in {unsigned.upn}" in each for each in said)
    assert "devicelogin" not in "".join(said)
    assert _codes_asked_for(ferry) - before <= 1, "a program that tries again at once does not become a flood"


def test_a_sign_in_service_that_hangs_holds_no_login_up_for_long(ferry: Ferry, unsigned: Person) -> None:
    identity = ferry.host.identity
    identity.fail(Failure.HANGS, at=(DEVICE_CODE,))
    try:
        assert f"mailferry sign-in {unsigned.upn}" in heard(ferry, unsigned, "imap")
    finally:
        identity.heal()
    assert ferry.log_lines("no device code in time", unsigned.upn)


def test_a_code_that_nobody_enters_expires_and_the_next_login_gets_another(
    ferry: Ferry, unsigned: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.demo.grants.DEVICE_LIFETIME_S", SHORT_LIFE_S)
    first = code_in(heard(ferry, unsigned, "imap"), ferry)
    assert DEVICE_LIFETIME_S > SHORT_LIFE_S
    codes: list[str] = []

    def next_code() -> bool:
        said = heard(ferry, unsigned, "imap")
        assert "Last time" not in said, "nobody did anything wrong"
        codes.extend(re.findall(USER_CODE, said))
        return codes[-1] != first if codes else False

    wait_until("another code is offered", next_code, SIGNED_IN_DEADLINE_S)
    monkeypatch.undo()
    wait_until("a code that lives long enough", lambda: next_code() and codes[-1] != codes[0], SIGNED_IN_DEADLINE_S)
    signs_in(ferry, codes[-1], unsigned)
    assert ferry.logs_in(unsigned)
    assert all(written_down(ferry, code) == [] for code in {first, *codes})


def test_an_app_with_a_secret_names_the_other_ways(mail_host: MailHost, tmp_path: Path) -> None:
    folder, secret = tmp_path / "ferry", tmp_path / "secret"
    folder.mkdir()
    with closing(Ferry(folder, mail_host)) as ferry:
        secret.write_text("the~Secret~Value~of~forty~characters~ok1")
        secret.chmod(0o600)
        identity = mail_host.identity
        identity.add_app(ferry.application_id, public=False, secret="the~Secret~Value~of~forty~characters~ok1")
        ferry.run(
            *("app", "add", "work", "--application-id", ferry.application_id, "--client-secret-file", str(secret)),
            *("--authority", identity.authority, "--ca-file", str(identity.ca_file)),
        )
        person = mail_host.new_person()
        ferry.account_add(person)
        ferry.serve()
        before = _codes_asked_for(ferry)
        assert f"mailferry sign-in {person.upn}" in heard(ferry, person, "imap")
        assert _codes_asked_for(ferry) == before
        ferry.sign_in(person)
        assert ferry.logs_in(person)


def _codes_asked_for(ferry: Ferry) -> int:
    return sum(endpoint == DEVICE_CODE for endpoint, _ in ferry.host.identity.requests)
