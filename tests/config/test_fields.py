from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from proxy.config.document import parse
from proxy.config.fields import Reading, Section
from proxy.config.findings import Report
from proxy.config.settings import UpstreamTls

FILE = Path("/etc/mailferry/some.yaml")


def section(text: str) -> tuple[Section, Report]:
    report = Report()
    root = parse(FILE, text, report)
    return Section(root, Reading(report, {"HOME": "/home/me"}, {})), report


def told(report: Report) -> list[tuple[int, str, str, str]]:
    return [(finding.line, finding.key, finding.problem, finding.remedy) for finding in report.findings]


@pytest.mark.parametrize(
    ("key", "near"), [("prot", "port"), ("usre", "user"), ("client_id", "application_id"), ("USER", "user")]
)
def test_an_unknown_key_names_the_nearest(key: str, near: str) -> None:
    keys, report = section(f"a: 1\n{key}: 2\n")
    with keys:
        for known in ("a", "port", "user", "application_id", "client_secret"):
            keys.node(known)
    wanted = "known here: a, application_id, client_secret, port, user" if key == "USER" else f"did you mean {near}?"
    assert told(report) == [(2, key, "unknown key", wanted)]


def test_whole_numbers_have_a_range_and_no_quotes() -> None:
    keys, report = section(f"a: 5\nb: '5'\nc: 0\nd: 11\ne: 1.5\nf: [1]\ng: 1{'0' * 5_000}\n")
    assert [keys.integer(key, 7, 1, 10) for key in "abcdefgh"] == [5, 7, 7, 7, 7, 7, 7, 7]
    assert [(line, key) for line, key, _, _ in told(report)] == [
        (2, "b"),
        (3, "c"),
        (4, "d"),
        (5, "e"),
        (6, "f"),
        (7, "g"),
    ]
    assert told(report)[2] == (4, "d", "11 is out of range", "write a whole number from 1 to 10")


def test_truth_values() -> None:
    keys, report = section("a: true\nb: off\nc: 'true'\nd: 1\ne: {}\nf: No\n")
    assert [keys.flag(key, True) for key in "abcdef"] == [True, False, True, True, True, False]
    assert [(line, problem) for line, _, problem, _ in told(report)] == [
        (3, "is 'true'"),
        (4, "is '1'"),
        (5, "is a mapping (keys and values)"),
    ]


def test_choices_name_what_is_allowed() -> None:
    keys, report = section("a: starttls\nb: off\nc: [implicit]\n")
    members = [keys.member(key, UpstreamTls, UpstreamTls.IMPLICIT) for key in "abcd"]
    assert members == [UpstreamTls.STARTTLS, UpstreamTls.IMPLICIT, UpstreamTls.IMPLICIT, UpstreamTls.IMPLICIT]
    assert told(report) == [
        (2, "b", "is 'off'", "write one of implicit, starttls"),
        (3, "c", "is a list", "write one of implicit, starttls"),
    ]


def test_a_text_is_one_printable_line() -> None:
    keys, report = section('a: x y\nb: ""\nc: "a\\nb"\nd: [x]\ne: "\\e[0m"\nf: "a\\0b"\n')
    assert [keys.text(key, "?") for key in "abcdef"] == ["x y", "?", "?", "?", "?", "?"]
    assert [line for line, *_ in told(report)] == [2, 3, 4, 5, 6]


def test_paths_are_relative_to_their_file_and_tilde_is_home() -> None:
    keys, _ = section("a: x/y\nb: /abs\nc: ~/z\nd: '~'\n")
    assert [keys.path(key) for key in "abcde"] == [
        Path("/etc/mailferry/x/y"),
        Path("/abs"),
        Path("/home/me/z"),
        Path("/home/me"),
        None,
    ]


def test_networks_are_cidr() -> None:
    keys, report = section("a: 10.0.0.0/8\nb: [192.168.1.7/24, '::1', x]\nc: []\n")
    assert keys.networks("a") == (ip_network("10.0.0.0/8"),)
    assert keys.networks("b") == (ip_network("::1/128"),)
    assert keys.networks("c") == ()
    assert told(report) == [
        (2, "b[0]", "'192.168.1.7/24' is not a network in CIDR form", "write 192.168.1.0/24"),
        (2, "b[2]", "'x' is not a network in CIDR form", "write an address or network such as 192.168.1.0/24"),
        (3, "c", "is an empty list", "write networks such as 192.168.1.0/24, or remove the key"),
    ]


def test_a_truth_value_is_no_network() -> None:
    keys, report = section("a: true\nb: Off\nc: 'yes'\n")
    assert [keys.networks(key) for key in "abc"] == [(), (), ()]
    assert [(line, key, problem) for line, key, problem, _ in told(report)] == [
        (1, "a", "is 'true'"),
        (2, "b", "is 'Off'"),
        (3, "c", "'yes' is not a network in CIDR form"),
    ]
    assert told(report)[0][3] == "write a list of networks, as in a: [192.168.1.0/24], or remove the key"


def test_protocols_come_in_their_own_order() -> None:
    keys, report = section("a: [smtp, imap]\nb: pop3\nc: [nntp]\nd: []\n")
    assert keys.protocols("a") == ("imap", "smtp")
    assert keys.protocols("b") == ("pop3",)
    assert keys.protocols("none") == ("imap", "pop3", "smtp")
    keys.protocols("c")
    keys.protocols("d")
    assert [(line, key) for line, key, _, _ in told(report)] == [(3, "c[0]"), (4, "d")]


def test_host_names() -> None:
    keys, report = section("a: mail.example.com\nb: '::1'\nc: a b\nd: https://x\ne: -x\n")
    assert [keys.host(key, "?") for key in "abcde"] == ["mail.example.com", "::1", "?", "?", "?"]
    assert [line for line, *_ in told(report)] == [3, 4, 5]


def test_what_is_no_mapping_is_told_once() -> None:
    report = Report()
    root = parse(FILE, "a: [1]\n", report)
    with Section(root.entries["a"], Reading(report, {}, {})) as keys:
        keys.missing("needed", "write it")
    assert [(line, key, problem) for line, key, problem, _ in told(report)] == [(1, "a", "is a list")]
