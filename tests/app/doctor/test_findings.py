"""How findings are told: `findings.py`."""

from __future__ import annotations

import json

from proxy.app.doctor.findings import Verdict, explained, fail, ok, plain, summary, told, warn, worst
from proxy.explanations import explain_sign_in
from proxy.login import Fault

GOOD = ok("clock", "Clock", "It agrees.", "a detail")
UNEASY = warn("ipv6", "IPv6", "It leads nowhere.", Fault.NETWORK, "Mend it.")
BAD = fail("tls", "IMAP at host:993", "It refuses.", Fault.EXCHANGE, "Ask.", "administrator", ["one", "two"])


def test_a_good_one_is_told_without_blame() -> None:
    assert told(GOOD) == "ok    Clock: It agrees.\n      - a detail"


def test_a_bad_one_says_what_whose_fault_and_what_to_do() -> None:
    assert told(BAD).splitlines() == [
        "FAIL  IMAP at host:993: It refuses.",
        "      Whose fault: Exchange. Who must act: the organisation's administrator.",
        "      What to do: Ask.",
        "      - one",
        "      - two",
    ]


def test_long_texts_are_wrapped_but_commands_are_not_cut() -> None:
    command = "mailferry sign-in " + "a" * 120 + "@contoso.com"
    lines = told(fail("x", "X", "word " * 60, Fault.CLIENT, command, "user")).splitlines()
    assert all(len(line) <= 100 for line in lines if "@" not in line)
    assert any("a" * 120 + "@contoso.com" in line for line in lines)


def test_the_worst_verdict() -> None:
    assert worst([]) is Verdict.OK
    assert worst([GOOD, UNEASY]) is Verdict.WARN
    assert worst([UNEASY, BAD, GOOD]) is Verdict.FAIL


def test_the_last_word_counts_and_says_where_to_begin() -> None:
    assert summary([GOOD]) == "All is well: 1 check, nothing to complain about."
    assert summary([UNEASY, BAD, BAD, GOOD]) == "2 failures and 1 warning. Begin with: IMAP at host:993. Ask."
    assert summary([UNEASY]) == "1 warning. Begin with: IPv6. Mend it."


def test_json_has_every_part() -> None:
    document = json.loads(json.dumps(plain(BAD)))
    assert document == {
        "check": "tls",
        "verdict": "fail",
        "title": "IMAP at host:993",
        "cause": "It refuses.",
        "fault": "exchange",
        "remedy": "Ask.",
        "who": "administrator",
        "details": ["one", "two"],
    }
    assert plain(GOOD)["fault"] is None


def test_what_the_table_explains_becomes_a_failure() -> None:
    row = explain_sign_in("invalid_client", [7000222])
    finding = explained("registration", "App", row, "", "words")
    assert (finding.verdict, finding.fault, finding.who) == (Verdict.FAIL, row.fault, row.who)
    assert finding.details == ("words",)
