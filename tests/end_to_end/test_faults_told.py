"""Each of FACTS section 5's 27 rows, from the wire to every place where a person reads of it.

These are: the mail program's refusal, the log, `mailferry account show`, `mailferry sign-in`, and the account's page.
What nobody knows is told in the same places, as it came and said to be unknown; a hostile text harms none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from proxy.demo.directory import Refused
from tests.end_to_end import refused
from tests.end_to_end.exchange import Exchange
from tests.end_to_end.faults import (
    EXCHANGE_FAULTS,
    PERSON,
    SIGN_IN_FAULTS,
    UNKNOWN,
    WHO,
    ExchangeFault,
    SignInFault,
    part,
)
from tests.end_to_end.faulty import PASSWORD, FaultyFerry, faulty_ferry
from tests.end_to_end.ferry import USER_CODE
from tests.servers.mailhost import DOMAIN

CODES = [(fault, code) for fault in SIGN_IN_FAULTS for code in fault.codes]
CORRELATION_ID = r"correlation id ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
STRANGE_CODE = 4_242_424
HOSTILE = (
    "<script>alert(1)</script> <b onmouseover=x> \x1b[31mred\x07 \r\n* OK injected\r\n]\u202e {user} {0} %s "
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6IjEifQ.eyJzZWNyZXQiOiJoZXJlIGl0IGlzIn0 " + "very long " * 300
)
HACK = Refused(STRANGE_CODE, error="<i>odd</i>", text=HOSTILE)


def login_of(fault: SignInFault | ExchangeFault, code: int = 0) -> str:
    if isinstance(fault, SignInFault):
        return f"aadsts{code or fault.codes[0]}@{DOMAIN}"
    return f"exchange{EXCHANGE_FAULTS.index(fault)}@{DOMAIN}"


STRANGER, HACKED, PUZZLED, MOCKED, SPARE = (
    f"{name}@{DOMAIN}" for name in ("stranger", "hacked", "puzzled", "mocked", "spare")
)
LOGINS = [
    *(login_of(fault, code) for fault, code in CODES),
    *map(login_of, EXCHANGE_FAULTS),
    *(STRANGER, HACKED, PUZZLED, MOCKED, SPARE),
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultyFerry, Exchange]]:
    with faulty_ferry(tmp_path_factory.mktemp("faults"), LOGINS) as stage:
        yield stage


@pytest.fixture(scope="module")
def ferry(stage: tuple[FaultyFerry, Exchange]) -> FaultyFerry:
    return stage[0]


def refuse(ferry: FaultyFerry, login: str, planted: Refused) -> refused.Said:
    """What mail programs hear whose logins need a token that the sign-in service refuses with this; once per login."""
    if login not in ferry.said:
        ferry.host.identity.issue_for(0)
        ferry.sign_in_at_once(login)
        ferry.host.identity.issue_for(3600)
        ferry.host.identity.fail(planted)
        try:
            imap = refused.imap(ferry, login, PASSWORD)  # the daemon remembers what it was told
        finally:
            ferry.host.identity.heal()
        pop3, smtp = refused.pop3(ferry, login, PASSWORD), refused.smtp(ferry, login, PASSWORD)
        ferry.said[login] = refused.Said(imap, pop3, smtp)
    return ferry.said[login]


def words(text: str, login: str) -> str:
    return text.replace("LOGIN", login)


# Rows 1-20: the sign-in service


@pytest.mark.parametrize(("fault", "code"), CODES, ids=[f"row {fault.row}: {code}" for fault, code in CODES])
def test_a_refused_refresh_is_told_to_the_mail_program_and_the_log(
    ferry: FaultyFerry, fault: SignInFault, code: int
) -> None:
    login = login_of(fault, code)
    said = refuse(ferry, login, Refused(code))
    for text in (said.imap, said.pop3, said.smtp):
        if (fault.verdict.reason, fault.verdict.who) == ("sign_in_needed", "user"):
            assert f"mailferry sign-in {login}" in text or re.search(USER_CODE, text)
        else:
            assert words(fault.cause, login) in text
    assert said.imap.startswith("[UNAVAILABLE]")
    assert said.pop3.startswith("-ERR [SYS/PERM]" if fault.verdict.reason == "misconfigured" else "-ERR [SYS/TEMP]")
    assert said.smtp.startswith("454 4.7.0")
    lines = ferry.log_lines("login refused", f"login={login} ")
    assert len(lines) == 3
    for line in lines:
        assert f"reason={fault.verdict.reason} fault={fault.verdict.fault} " in line
        assert f"AADSTS{code}" in line
        assert re.search(CORRELATION_ID, line)
        assert words(fault.cause, login) in line
        assert words(fault.remedy, login).rstrip('" ') in line.replace('\\"', '"')
    row = ferry.row(login)
    assert words(fault.cause, login) in row["last_error"]
    assert words(fault.remedy, login) in row["remedy"]
    assert (row["fault"], row["who"], row["error_code"]) == (fault.verdict.fault, fault.verdict.who, f"AADSTS{code}")


@pytest.mark.parametrize("fault", SIGN_IN_FAULTS, ids=str)
def test_the_account_and_its_page_tell_it(ferry: FaultyFerry, fault: SignInFault) -> None:
    login = login_of(fault)
    refuse(ferry, login, Refused(fault.codes[0]))
    correlation_id = re.findall(CORRELATION_ID, " ".join(ferry.log_lines("login refused", f"login={login} ")))[-1]
    assert ferry.row(login)["error_at"]
    for place, text in (("account show", ferry.shown(login)), ("page", ferry.account_page(login))):
        assert words(fault.cause, login) in text, place
        assert words(fault.remedy, login).strip() in text, place
        assert f"AADSTS{fault.codes[0]}" in text, place
        assert correlation_id in text, place
        assert (fault.verdict.who if place == "account show" else WHO[fault.verdict.who]) in text, place
    assert f"fault {fault.verdict.fault}" in ferry.shown(login)


@pytest.mark.parametrize("fault", SIGN_IN_FAULTS, ids=str)
def test_who_signs_in_is_told(ferry: FaultyFerry, fault: SignInFault) -> None:
    login = login_of(fault)
    unfinished = fault.verdict is PERSON  # then the exit code is that of a sign-in that is still needed
    told = ferry.sign_in_meeting(login, Refused(fault.codes[0]), fault.met, exit_code=3 if unfinished else 1)
    assert words(fault.cause, login) in told.errors
    if fault.verdict.reason == "try_later":
        assert "Start the sign-in again in a few minutes." in told.errors
    else:
        assert words(fault.remedy, login) in told.errors
    assert f"AADSTS{fault.codes[0]}" in told.errors
    assert re.search(CORRELATION_ID, told.errors)
    assert ferry.log_lines("sign-in refused", f"AADSTS{fault.codes[0]}") or fault.met == "device"


@pytest.mark.parametrize("fault", SIGN_IN_FAULTS, ids=str)
def test_who_signs_in_on_the_page_is_told(ferry: FaultyFerry, fault: SignInFault) -> None:
    login = login_of(fault)
    page = ferry.sign_in_on_page_meeting(login, Refused(fault.codes[0]), fault.met)
    assert words(fault.cause, login) in page
    again = "Start the sign-in again in a few minutes."
    assert (again if fault.verdict.reason == "try_later" else words(fault.remedy, login)).strip() in page
    assert f"AADSTS{fault.codes[0]}" in page
    assert re.search(CORRELATION_ID, page)


# Rows 21-27: Exchange


@pytest.mark.parametrize("fault", EXCHANGE_FAULTS, ids=str)
def test_what_exchange_refuses_is_told(stage: tuple[FaultyFerry, Exchange], fault: ExchangeFault) -> None:
    ferry, exchange = stage
    login = login_of(fault)
    ferry.sign_in_at_once(login)
    played = exchange.perform(fault.protocol, [part(fault)] * fault.connections)
    if fault.at == "message":
        assert ferry.send(login) == fault.said.decode(), "the mail program hears Exchange itself"
        event = "upstream said"
    else:
        say = {"imap": refused.imap, "pop3": refused.pop3, "smtp": refused.smtp}[fault.protocol]
        assert words(fault.cause, login) in say(ferry, login, PASSWORD)
        event = "login refused"
    exchange.forget(fault.protocol)
    for connection in played:
        connection.result()
    [line] = ferry.log_lines(event, f"login={login} ")
    assert "fault=exchange" in line
    assert words(fault.cause, login) in line
    assert words(fault.remedy, login) in line
    if fault.at != "message":
        assert f"reason={fault.verdict.reason} " in line
    row = ferry.row(login)
    assert row["state"] == fault.verdict.state
    assert (row["fault"], row["who"]) == ("exchange", fault.verdict.who)
    for place, text in (("account show", ferry.shown(login)), ("page", ferry.account_page(login))):
        assert words(fault.cause, login) in text, place
        assert words(fault.remedy, login) in text, place
        assert (fault.verdict.who if place == "account show" else WHO[fault.verdict.who]) in text, place


# What nobody knows


def test_an_unknown_error_of_the_sign_in_service_is_shown_as_it_came(ferry: FaultyFerry) -> None:
    planted = Refused(STRANGE_CODE, error="odd_error", text="Mercury is in retrograde.")
    said = refuse(ferry, STRANGER, planted)
    raw = f"does not know: odd_error AADSTS{STRANGE_CODE}: Mercury is in retrograde."
    where = f"https://login.microsoftonline.com/error?code={STRANGE_CODE}"
    for text in (said.imap, said.pop3, said.smtp):
        assert "an error that mailferry does not know" in text
    for place, text in (("account show", ferry.shown(STRANGER)), ("page", ferry.account_page(STRANGER))):
        assert raw in text, place
        assert where in text, place
    [*lines] = ferry.log_lines("login refused", f"login={STRANGER} ", "reason=try_later fault=microsoft_sign_in")
    assert len(lines) == 3
    assert all(raw in line and where in line and re.search(CORRELATION_ID, line) for line in lines)
    told = ferry.sign_in_meeting(SPARE, planted, "redeem")
    assert raw in told.errors


def test_an_unknown_answer_of_exchange_is_shown_as_it_came(stage: tuple[FaultyFerry, Exchange]) -> None:
    ferry, exchange = stage
    ferry.sign_in_at_once(PUZZLED)
    odd = ExchangeFault(0, "pop3", b"-ERR Mercury is in retrograde.", "login", "", "", UNKNOWN)
    exchange.perform("pop3", [part(odd)] * 2)
    raw = "an answer that mailferry does not know: Mercury is in retrograde."
    assert raw in refused.pop3(ferry, PUZZLED, PASSWORD)
    assert raw in ferry.shown(PUZZLED)
    assert raw in ferry.account_page(PUZZLED)
    [line] = ferry.log_lines("login refused", f"login={PUZZLED} ", "fault=exchange")
    assert raw in line


def test_a_hostile_text_of_the_sign_in_service_harms_nobody(ferry: FaultyFerry) -> None:
    said = refuse(ferry, HACKED, HACK)
    told = ferry.sign_in_meeting(HACKED, HACK, "redirect").errors.strip()
    for text in (said.imap, said.pop3, said.smtp):
        assert text.isprintable()
        assert text.isascii()
        assert len(text) <= 200
    places = [
        told,
        *ferry.log_lines("login refused", f"login={HACKED} "),
        *ferry.told("account", "show", HACKED).output.splitlines(),
    ]
    for line in places:
        assert line.isprintable(), line
        assert len(line) < 2_000
        assert "eyJ0eXAi" not in line
    assert "<script>alert(1)" in told, "shown as it came"


def test_a_hostile_text_of_the_sign_in_service_is_text_on_the_page(ferry: FaultyFerry) -> None:
    refuse(ferry, HACKED, HACK)
    page = ferry.fetch(f"/accounts/{HACKED}")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "<b onmouseover" not in page
    assert "eyJ0eXAi" not in page
    assert "\x1b" not in page


def test_a_hostile_text_of_exchange_harms_nobody(stage: tuple[FaultyFerry, Exchange]) -> None:
    ferry, exchange = stage
    ferry.sign_in_at_once(MOCKED)
    flat = re.sub(r"[\r\n]+", " ", HOSTILE).encode()[:2_000]
    odd = ExchangeFault(0, "imap", b"NO " + flat, "login", "", "", UNKNOWN)
    exchange.perform("imap", [part(odd)] * 2)
    said = refused.imap(ferry, MOCKED, PASSWORD)
    exchange.forget("imap")
    [line] = ferry.log_lines("login refused", f"login={MOCKED} ")
    for text in (said, line, *ferry.told("account", "show", MOCKED).output.splitlines()):
        assert text.isprintable()
        assert "eyJ0eXAi" not in text
        assert len(text) < 2_000
    page = ferry.fetch(f"/accounts/{MOCKED}")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
