"""Names and IPv6: `names.py`."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from unittest import mock

from proxy.app.doctor.findings import Verdict
from proxy.app.doctor.lines import LineTrouble
from proxy.app.doctor.names import check_names
from proxy.app.doctor.scene import Place, Scene
from proxy.login import Fault
from tests.app.doctor.scenes import only, place, scene_of, words
from tests.app.home import Home


@contextmanager
def world(addresses: dict[str, list[str]], reached: dict[int, str | None]) -> Iterator[None]:
    """Names and their addresses; by family, what a connect comes to (None: it works)."""

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if not addresses.get(host):
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, 1, 6, "", (address, 0)) for address in addresses[host]]

    def connect(host: str, port: int, family: int) -> mock.Mock:
        kind = reached[family]
        if kind:
            raise LineTrouble(kind, "does not answer within 8 s")
        return mock.Mock()

    with mock.patch("socket.getaddrinfo", getaddrinfo), mock.patch("proxy.app.doctor.names.connect", connect):
        yield


def scene_with(home: Home, *places: Place, environ: dict[str, str] | None = None) -> Scene:
    class Limited(Scene):
        @property
        def places(self) -> Sequence[Place]:
            return places

    scene = scene_of(home, environ=environ)
    return Limited(**{field.name: getattr(scene, field.name) for field in fields(scene)})


OURS = place(993, host="imap.contoso.com")
THEIRS = place(993, host="outlook.office365.com", microsoft=True)


def test_all_have_addresses(home: Home) -> None:
    with world({"imap.contoso.com": ["10.0.0.1"], "outlook.office365.com": ["10.0.0.2"]}, {}):
        finding = only(check_names(scene_with(home, OURS, THEIRS)))
    assert finding.verdict is Verdict.OK
    assert "imap.contoso.com and outlook.office365.com have addresses" in finding.cause
    assert "imap.contoso.com: 10.0.0.1" in finding.details


def test_a_name_of_ours_without_one_may_be_misspelt(home: Home) -> None:
    scene = scene_with(home, OURS, THEIRS)
    with world({"outlook.office365.com": ["10.0.0.2"]}, {}):
        bad = next(each for each in check_names(scene) if each.verdict is Verdict.FAIL)
    assert (bad.check, bad.fault) == ("dns", Fault.NETWORK)
    assert "upstreams.imap.host" in bad.remedy
    assert scene.out_of_reach == {"imap.contoso.com:993"}


def test_microsofts_names_without_one_are_this_machines_trouble(home: Home) -> None:
    more = place(587, host="smtp.office365.com", use="smtp", microsoft=True)
    with world({}, {}):
        bad = only(check_names(scene_with(home, THEIRS, more)))
    assert "outlook.office365.com and smtp.office365.com" in bad.cause
    assert "online" in bad.remedy


def test_addresses_are_not_looked_up(home: Home) -> None:
    with world({}, {}):
        assert list(check_names(scene_with(home, place(993, host="127.0.0.1"), place(993, host="::1")))) == []


def test_what_is_behind_a_proxy_is_looked_up_there(home: Home) -> None:
    login = place(443, host="login.test", use="sign-in")
    with world({}, {}):
        assert list(check_names(scene_with(home, login, environ={"HTTPS_PROXY": "http://box:1"}))) == []
        assert list(check_names(scene_with(home, login, environ={"HTTPS_PROXY": "socks4://box:1"}))) == []
        assert only(check_names(scene_with(home, login))).verdict is Verdict.FAIL


def test_ipv6_that_leads_nowhere(home: Home) -> None:
    both = {"outlook.office365.com": ["10.0.0.2", "2603:1026::2"]}
    with world(both, {socket.AF_INET6: "timeout", socket.AF_INET: None}):
        warning = next(each for each in check_names(scene_with(home, THEIRS)) if each.check == "ipv6")
    assert (warning.verdict, warning.fault) == (Verdict.WARN, Fault.NETWORK)
    assert "IPv4 works" in warning.cause
    assert "disable_ipv6" in words(warning)


def test_ipv6_that_works_or_is_not_there(home: Home) -> None:
    both = {"outlook.office365.com": ["10.0.0.2", "2603:1026::2"]}
    with world(both, {socket.AF_INET6: None, socket.AF_INET: None}):
        good = [each for each in check_names(scene_with(home, THEIRS)) if each.check == "ipv6"]
    assert [each.verdict for each in good] == [Verdict.OK]
    with world(both, {socket.AF_INET6: "unreachable", socket.AF_INET: None}):
        none = [each for each in check_names(scene_with(home, THEIRS)) if each.check == "ipv6"]
    assert "has none that leads out" in none[0].cause
    with world(both, {socket.AF_INET6: "timeout", socket.AF_INET: "timeout"}):
        assert [each for each in check_names(scene_with(home, THEIRS)) if each.check == "ipv6"] == []
