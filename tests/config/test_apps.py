from __future__ import annotations

import datetime

import pytest

from proxy.config import App
from proxy.config.settings import Certificate, Cloud, Flow, Secret
from tests.config.conftest import GUID, Folder

TENANT = "22222222-2222-4222-8222-222222222222"


def app(text: str, application_id: str = GUID) -> str:
    return f"apps:\n  work:\n    application_id: {application_id}\n    {text}\n"


def told(folder: Folder, text: str) -> tuple[str, int, str, str]:
    finding = folder.finding(text)
    return finding.severity, finding.line, finding.key, finding.problem


def test_the_defaults(folder: Folder) -> None:
    assert folder.config(app("", GUID.upper())).apps == {
        "work": App(
            name="work",
            application_id=GUID,
            account_types="organizations",
            authority="https://login.microsoftonline.com/organizations",
            own_authority=False,
            client_secret=None,
            certificate=None,
            flow=Flow.DELEGATED,
            cloud=Cloud.GLOBAL,
            redirect_uri="http://localhost",
            enabled=True,
            ca_file=None,
        )
    }


@pytest.mark.parametrize(
    ("cloud", "host"),
    [
        ("global", "login.microsoftonline.com"),
        ("gcc_high", "login.microsoftonline.us"),
        ("dod", "login.microsoftonline.us"),
        ("china", "login.partner.microsoftonline.cn"),
    ],
)
@pytest.mark.parametrize("types", ["consumers", "organizations", "common", "contoso.com", TENANT])
def test_the_authority_follows_cloud_and_account_types(folder: Folder, cloud: str, host: str, types: str) -> None:
    [work] = folder.config(app(f"cloud: {cloud}\n    account_types: {types}")).apps.values()
    assert (work.authority, work.account_types, work.own_authority) == (f"https://{host}/{types}", types, False)


def test_the_end_of_a_secret(folder: Folder) -> None:
    secret = "client_secret: the~Secret~Value\n    client_secret_expires"
    for written in ("2027-05-01", "'2027-05-01'"):
        [work] = folder.config(app(f"{secret}: {written}")).apps.values()
        assert work.client_secret_expires == datetime.date(2027, 5, 1)
    for wrong in ("2027-02-30", "1.5.2027", "soon", "20270501", "2027-05-01T00:00:00Z"):
        severity, _, key, problem = told(folder, app(f"{secret}: {wrong}"))
        assert (severity, key) == ("error", "apps.work.client_secret_expires")
        assert "is not a day" in problem


def test_an_end_without_a_secret_is_a_remainder(folder: Folder) -> None:
    severity, _, key, problem = told(folder, app("client_secret_expires: 2027-05-01"))
    assert (severity, key) == ("warning", "apps.work.client_secret_expires")
    assert "no client_secret" in problem


def test_an_authority_given_whole(folder: Folder) -> None:
    [work] = folder.config(app("authority: https://127.0.0.1:8443/practice/")).apps.values()
    assert (work.authority, work.account_types, work.own_authority) == (
        "https://127.0.0.1:8443/practice",
        "practice",
        True,
    )
    [work] = folder.config(app("authority: https://h/t\n    account_types: common")).apps.values()
    assert (work.authority, work.account_types) == ("https://h/t", "common")


def test_every_other_key(folder: Folder) -> None:
    for name in ("c.pem", "k.pem", "ca.pem"):
        folder.write(name, "")
    text = (
        "certificate: {file: c.pem, key: k.pem}\n    flow: app_only\n    account_types: contoso.com\n"
        "    redirect_uri: https://mail.example.com/done\n    ca_file: ca.pem"
    )
    [work] = folder.config(app(text)).apps.values()
    assert work.certificate == Certificate(folder.path / "c.pem", folder.path / "k.pem")
    assert (work.flow, work.redirect_uri) == (Flow.APP_ONLY, "https://mail.example.com/done")
    assert work.ca_file == folder.path / "ca.pem"


@pytest.mark.parametrize(
    "authority",
    [
        "http://h/t",
        "https://h",
        "https://h/",
        "https:///t",
        "https://u:p@h/t",
        "https://h/t?x=1",
        "https://[h/t",
        "https://h:0x/t",
    ],
)
def test_what_is_no_authority(folder: Folder, authority: str) -> None:
    assert told(folder, app(f"authority: '{authority}'"))[:3] == ("error", 4, "apps.work.authority")


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com",
        "http://[::1]",
        "ftp://localhost",
        "localhost",
        "https://[h",
        "https://h/" + "x" * 300,
        "https://h/#x",
    ],
)
def test_what_is_no_redirect_address(folder: Folder, uri: str) -> None:
    assert told(folder, app(f"redirect_uri: '{uri}'"))[:3] == ("error", 4, "apps.work.redirect_uri")


@pytest.mark.parametrize("written", ["work-app", "1111-2222", GUID[:-1], f"'{{{GUID}}}'"])
def test_an_application_id_that_is_none(folder: Folder, written: str) -> None:
    finding = folder.finding(app("", written))
    assert (finding.severity, finding.line, finding.key) == ("error", 3, "apps.work.application_id")
    assert "Application (client) ID" in finding.remedy
    assert "not the Object ID, not a Secret ID" in finding.remedy


def test_a_missing_application_id(folder: Folder) -> None:
    assert told(folder, "apps:\n  work: {}\n") == ("error", 2, "apps.work.application_id", "is missing")


def test_a_secret_id_in_place_of_the_secret(folder: Folder) -> None:
    finding = folder.finding(app(f"client_secret: {TENANT}"))
    assert (finding.line, finding.key, finding.problem) == (4, "apps.work.client_secret", "this is the Secret ID")
    assert "Value" in finding.remedy
    folder.write("secret", f"{TENANT}\n")
    assert folder.finding(app("client_secret: {file: secret}")).problem == "this is the Secret ID"


def test_a_secret_is_taken_and_not_printed(folder: Folder) -> None:
    config = folder.config(app("client_secret: Q~hunter2"))
    assert config.apps["work"].client_secret == Secret("Q~hunter2")
    assert "hunter2" not in repr(config)


def test_a_secret_beside_a_certificate(folder: Folder) -> None:
    folder.write("c.pem", "")
    folder.write("k.pem", "")
    found = told(folder, app("client_secret: Q~x\n    certificate: {file: c.pem, key: k.pem}"))
    assert found == ("error", 5, "apps.work.certificate", "stands beside a client_secret")


@pytest.mark.parametrize("types", ["consumers", "organizations", "common"])
def test_app_only_needs_one_organisation(folder: Folder, types: str) -> None:
    found = told(folder, app(f"account_types: {types}\n    flow: app_only\n    client_secret: Q~x"))
    assert found == ("error", 4, "apps.work.account_types", f"app_only needs one organisation, not '{types}'")


def test_app_only_at_an_authority_of_its_own(folder: Folder) -> None:
    text = "authority: https://h/{}\n    flow: app_only\n    client_secret: Q~x"
    assert folder.findings(app(text.format(TENANT))) == []
    assert told(folder, app(text.format("common")))[:3] == ("error", 4, "apps.work.authority")


def test_app_only_needs_a_credential(folder: Folder) -> None:
    found = told(folder, app(f"account_types: {TENANT}\n    flow: app_only"))
    assert found == ("error", 5, "apps.work.flow", "app_only needs a client_secret or a certificate")


def test_misspelt_account_types_name_the_nearest(folder: Folder) -> None:
    finding = folder.finding(app("account_types: organisations"))
    assert (finding.line, finding.key) == (4, "apps.work.account_types")
    assert finding.remedy.endswith("did you mean organizations?")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("scopes: [IMAP.AccessAsUser.All]", "scopes"),
        ("flow: device", "flow"),
        ("cloud: germany", "cloud"),
        ("enabled: perhaps", "enabled"),
        ("ca_file: nowhere.pem", "ca_file"),
        ("client_id: x", "client_id"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str) -> None:
    assert told(folder, app(text))[:3] == ("error", 4, f"apps.work.{key}")


def test_a_switched_off_app_is_a_warning(folder: Folder) -> None:
    found = told(folder, app("enabled: false"))
    assert found == ("warning", 4, "apps.work.enabled", "app 'work' is switched off")


@pytest.mark.parametrize("name", ["'my app'", "-x", "ü", "'a/b'"])
def test_names_are_plain(folder: Folder, name: str) -> None:
    finding = folder.finding(f"apps:\n  {name}: {{application_id: {GUID}}}\n")
    assert finding.line == 2
    assert finding.problem.endswith("is no good name")


def test_apps_are_a_mapping(folder: Folder) -> None:
    assert told(folder, "apps:\n  - {name: work}\n") == ("error", 1, "apps", "is a list")
