"""TLS to each host, and what its troubles mean: `transport.py`. That they happen, `test_lines.py` shows."""

from __future__ import annotations

import datetime
from pathlib import Path
from unittest import mock

import pytest

from proxy.app.doctor import transport
from proxy.app.doctor.findings import Finding, Verdict
from proxy.app.doctor.lines import LineTrouble
from proxy.app.doctor.scene import Place
from proxy.app.doctor.transport import check_place
from proxy.config.settings import UpstreamTls
from proxy.demo.certificates import local_certificate
from proxy.login import Fault
from tests.app.doctor.authorities import DAY, make_authority
from tests.app.doctor.scenes import only, place, scene_of, words
from tests.app.doctor.test_certificates import der
from tests.app.doctor.test_lines import says, server, tls
from tests.app.home import Home

OURS = place(993, host="imap.contoso.com")
THEIRS = place(993, host="outlook.office365.com", microsoft=True)


def told(home: Home, at: Place, kind: str, text: str = "is odd", chain: tuple[bytes, ...] = ()) -> Finding:
    scene = scene_of(home)
    with mock.patch.object(transport, "secured", side_effect=LineTrouble(kind, text, chain)):
        finding = only(check_place(scene, at))
        assert list(check_place(scene, at)) == [], "it is told once"
    assert scene.out_of_reach == {at.name}
    assert finding.verdict is Verdict.FAIL
    assert finding.remedy
    return finding


def test_a_good_one_names_its_issuer(home: Home, tmp_path: Path) -> None:
    certificate = local_certificate(tmp_path)
    with server(tls(certificate)) as port:
        finding = only(check_place(scene_of(home), place(port, ca_file=certificate.ca_file)))
    assert finding.verdict is Verdict.OK
    assert "TLSv1.3 at once" in finding.cause
    assert "mailferry practice harbour" in finding.details[0]


def test_a_good_one_behind_starttls(home: Home, tmp_path: Path) -> None:
    certificate = local_certificate(tmp_path)
    greeting = says(b"220 x\r\n", None, b"250 STARTTLS\r\n", None, b"220 go\r\n")
    with server(tls(certificate, greeting)) as port:
        at = place(port, use="smtp", tls=UpstreamTls.STARTTLS, ca_file=certificate.ca_file)
        finding = only(check_place(scene_of(home), at))
    assert "after STARTTLS" in finding.cause


def test_what_is_known_to_be_out_of_reach_is_not_tried(home: Home) -> None:
    scene = scene_of(home)
    scene.out_of_reach.add(OURS.name)
    with mock.patch.object(transport, "secured", side_effect=AssertionError):
        assert list(check_place(scene, OURS)) == []


@pytest.mark.parametrize(
    ("kind", "ours", "theirs"),
    [
        ("refused", "host and port are right (upstreams.imap)", "firewall"),
        ("timeout", "outgoing TCP port 993", "outgoing TCP port 993"),
        ("unreachable", "network", "network"),
        ("proxy", "variable", "variable"),
        ("starttls", "Check port and tls", "takes STARTTLS out"),
        ("tls", "Check port and tls", "meddles"),
        ("name", "DNS", "DNS"),
        ("broken", "Try again", "Try again"),
    ],
)
def test_each_trouble_has_its_remedy(home: Home, kind: str, ours: str, theirs: str) -> None:
    for at, remedy in ((OURS, ours), (THEIRS, theirs)):
        finding = told(home, at, kind)
        assert remedy in finding.remedy
        assert finding.fault is Fault.NETWORK
        assert finding.cause == f"{at.host} is odd."


def test_a_trust_file_of_ours_that_cannot_be_read(home: Home) -> None:
    finding = told(home, OURS, "broken", "cannot be verified: /x is not a readable PEM file")
    assert finding.fault is Fault.MAILFERRY
    assert "upstreams.imap.ca_file" in finding.remedy


def test_a_box_that_opens_tls_to_microsoft_is_named(home: Home, tmp_path: Path) -> None:
    chain = tuple(der(make_authority(tmp_path, "Fortress Root", "Fortress Inc", host="outlook.office365.com").file))
    finding = told(home, THEIRS, "certificate", "self-signed certificate in certificate chain", chain)
    assert '"Fortress Root" of Fortress Inc' in finding.cause
    assert "opens the TLS" in finding.cause
    assert "leave outlook.office365.com alone" in finding.remedy
    assert "upstreams.imap.ca_file" in finding.remedy
    assert (finding.fault, finding.who) == (Fault.NETWORK, "administrator")
    assert len(finding.details) == 2, "the whole chain is shown"


def test_an_unknown_issuer_of_ours(home: Home, tmp_path: Path) -> None:
    chain = tuple(der(make_authority(tmp_path, "Home CA", "").file))
    finding = told(home, OURS, "certificate", "unable to get local issuer certificate", chain)
    assert '"Home CA"' in finding.cause
    assert "upstreams.imap.ca_file" in finding.remedy


def test_a_chain_that_could_not_be_had(home: Home) -> None:
    finding = told(home, OURS, "certificate", "unable to get local issuer certificate")
    assert "OpenSSL says: unable to get local issuer certificate." in finding.details
    assert "somebody unknown" in finding.cause


def test_another_name_in_the_certificate(home: Home, tmp_path: Path) -> None:
    chain = tuple(der(make_authority(tmp_path, "CA", "", host="wifi.hotel.example").file))
    said = "Hostname mismatch, certificate is not valid for 'outlook.office365.com'"
    finding = told(home, THEIRS, "certificate", said, chain)
    assert "is for wifi.hotel.example" in finding.cause
    assert "log-in page" in finding.remedy
    assert "upstreams.imap.host" in told(home, OURS, "certificate", said, chain).remedy


@pytest.mark.parametrize(
    ("begins", "ends", "said", "shown"),
    [
        (-9 * DAY, -DAY, "certificate has expired", "ended on"),
        (DAY, 9 * DAY, "certificate is not yet valid", "begins on"),
    ],
)
def test_a_certificate_out_of_its_time_leads_to_the_clock(
    home: Home, tmp_path: Path, begins: datetime.timedelta, ends: datetime.timedelta, said: str, shown: str
) -> None:
    chain = tuple(der(make_authority(tmp_path, "CA", "", begins=begins, ends=ends).file))
    finding = told(home, THEIRS, "certificate", said, chain)
    assert shown in finding.cause
    assert "clock" in finding.cause
    assert "timedatectl" in words(finding)
