from __future__ import annotations

import pytest

from proxy.config import Upstream
from proxy.config.settings import Cloud, UpstreamTls
from tests.config.conftest import GUID, HASH, Folder

IMPLICIT = UpstreamTls.IMPLICIT
STARTTLS = UpstreamTls.STARTTLS


@pytest.mark.parametrize(
    ("cloud", "mail", "smtp"),
    [
        ("global", "outlook.office365.com", "smtp.office365.com"),
        ("gcc_high", "outlook.office365.us", "outlook.office365.us"),
        ("dod", "outlook-dod.office365.us", "outlook-dod.office365.us"),
        ("china", "partner.outlook.cn", "partner.outlook.cn"),
    ],
)
def test_the_defaults_follow_the_apps_cloud(folder: Folder, cloud: str, mail: str, smtp: str) -> None:
    config = folder.config(
        f"apps: {{w: {{application_id: {GUID}, cloud: {cloud}}}}}\n"
        f"accounts: [{{login: a@b.c, app: w, password: '{HASH}'}}]\n"
    )
    [account] = config.accounts
    assert config.upstream(account, "imap") == Upstream(mail, 993, IMPLICIT, None, exchange=True)
    assert config.upstream(account, "pop3") == Upstream(mail, 995, IMPLICIT, None, exchange=True)
    assert config.upstream(account, "smtp") == Upstream(smtp, 587, STARTTLS, None, exchange=True)


def test_what_is_written_stands_for_every_cloud(folder: Folder) -> None:
    ca = folder.write("ca.pem", "", 0o644)
    config = folder.config("upstreams:\n  imap: {host: 127.0.0.1, port: 9993, ca_file: ca.pem}\n  pop3: {port: 1}\n")
    own = Upstream("127.0.0.1", 9993, IMPLICIT, ca, exchange=False)
    assert [config.upstreams[cloud, "imap"] for cloud in Cloud] == [own] * 4
    assert config.upstreams[Cloud.CHINA, "pop3"] == Upstream("partner.outlook.cn", 1, IMPLICIT, None, exchange=True)
    assert config.upstreams[Cloud.GLOBAL, "smtp"].host == "smtp.office365.com"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("imap: {tls: off}", "imap.tls"),
        ("smtp: {tls: auto}", "smtp.tls"),
        ("pop3: {port: 0}", "pop3.port"),
        ("imap: {host: 'https://x'}", "imap.host"),
        ("imap: {ca_file: nowhere}", "imap.ca_file"),
        ("imap: {certificate: x}", "imap.certificate"),
        ("imap: outlook.office365.com", "imap"),
        ("nntp: {}", "nntp"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str) -> None:
    finding = folder.finding(f"upstreams:\n  {text}\n")
    assert (finding.severity, finding.line, finding.key) == ("error", 2, f"upstreams.{key}")
