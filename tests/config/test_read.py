from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config import ConfigurationError, Finding, read
from proxy.config.settings import PROTOCOL_NAMES, AuthFailures, Certificate, Cloud, ListenerTls, Log
from tests.config.conftest import GUID, HASH, Folder

ROOT = Path(__file__).parents[2]
EXAMPLE, README = ROOT / "config.example.yaml", ROOT / "README.md"
SERVED = """
state_dir page hostname listeners apps accounts upstreams store key log protocol address port tls certificate
legacy_tls require_tls allow_from auth_failures proxy_protocol implicit_account application_id account_types
client_secret client_secret_expires flow cloud redirect_uri enabled authority ca_file login app password hash name
protocols from mailbox sign_in imap_connections smtp_connections messages_per_minute imap pop3 smtp host kind
level format file credential keyring env socket notify command webhook
""".split()  # noqa: SIM905 - easier to read
NOT_SERVED = ["postgresql"]
APP = f"{{application_id: {GUID}}}"


def account(login: str, app: str = "work") -> str:
    return f"{{login: {login}, app: {app}, password: '{HASH}'}}"


def told(folder: Folder, text: str) -> list[tuple[str, int, str, str]]:
    return [(each.file.name, each.line, each.key, each.problem) for each in folder.findings(text)]


def test_the_example_loads_as_it_is() -> None:
    loaded = read(EXAMPLE, {"HOME": "/nowhere"})
    assert [account.name for account in loaded.config.accounts] == ["alice@contoso.com"]
    defaults = read(None, {"HOME": "/nowhere"}).config
    assert loaded.config.listeners == defaults.listeners
    assert loaded.config.page == defaults.page
    assert loaded.config.upstreams == defaults.upstreams
    assert (loaded.config.key, loaded.config.log) == (defaults.key, defaults.log)


def test_the_example_shows_every_key_that_is_served() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert [key for key in SERVED if f"{key}:" not in text and f"takes {key}" not in text] == []
    assert [key for key in NOT_SERVED if key in text] == []


def test_the_examples_comments_are_true(folder: Folder) -> None:
    """What stands behind "#" is the default, and loads once the mark is taken away."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for key in ("state_dir", "upstreams", "  imap", "  pop3", "  smtp"):
        text = text.replace(f"# {key}:", f"{key}:")
    for key in (
        "flow",
        "cloud",
        "redirect_uri",
        "enabled",
        "sign_in",
        "protocols",
        "imap_connections",
        "smtp_connections",
        "messages_per_minute",
    ):
        text = text.replace(f"    # {key}:", f"    {key}:")
    config = folder.config(text)
    assert config.state_dir == Path("/var/lib/mailferry")
    defaults = read(None, {}).config
    for protocol in PROTOCOL_NAMES:
        assert config.upstreams[Cloud.GLOBAL, protocol] == defaults.upstreams[Cloud.GLOBAL, protocol]
    assert config.accounts == read(EXAMPLE, {}).config.accounts


def test_the_examples_listeners_hold(folder: Folder) -> None:
    """Each listener behind "#" loads once the mark is taken away, all of them beside each other."""
    folder.write("mail.pem", "")
    folder.write("mail.key", "")
    text = re.sub(r"^  # ", "  ", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    loaded = read(folder.write("config.yaml", text), folder.environ)
    every_key, old_tls, no_tls, no_login, balanced = loaded.config.listeners[3:]
    assert (every_key.require_tls, every_key.legacy_tls, every_key.auth_failures) == (
        True,
        False,
        AuthFailures.DEFERRED,
    )
    assert (every_key.certificate, every_key.tls) == (
        Certificate(folder.path / "mail.pem", folder.path / "mail.key"),
        ListenerTls.STARTTLS,
    )
    assert (old_tls.tls, old_tls.require_tls, old_tls.legacy_tls) == (ListenerTls.AUTO, True, True)
    assert (no_tls.tls, no_tls.allow_from) == (ListenerTls.OFF, (ip_network("192.168.1.22/32"),))
    assert no_login.implicit_account == loaded.config.accounts[0].name
    assert balanced.proxy_protocol == (ip_network("192.168.1.5/32"),)
    assert [(each.severity, each.key) for each in loaded.findings] == [
        ("warning", "listeners[4].legacy_tls"),
        ("warning", "listeners[5].require_tls"),
        ("warning", "listeners[6].require_tls"),
        ("warning", "listeners[6].implicit_account"),
    ]


def test_the_listeners_that_the_readme_shows_for_devices_hold(folder: Folder) -> None:
    text = README.read_text(encoding="utf-8").split("\n## Scanners, printers and other devices\n")[1].split("\n## ")[0]
    shown = re.findall(r"^ *```yaml\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    whole, *further = map(textwrap.dedent, shown)
    people = f"apps: {{work: {APP}}}\naccounts: [{account('alice@contoso.com')}]\n"
    listeners = folder.config(whole + textwrap.indent("".join(further), "  ") + people).listeners
    assert [(each.protocol, each.port, each.tls, each.require_tls) for each in listeners] == [
        ("imap", 1143, ListenerTls.AUTO, False),
        ("pop3", 1110, ListenerTls.AUTO, False),
        ("smtp", 1587, ListenerTls.AUTO, False),
        ("smtp", 1588, ListenerTls.AUTO, True),
        ("smtp", 1587, ListenerTls.OFF, False),
        ("smtp", 1025, ListenerTls.OFF, False),
        ("imap", 1993, ListenerTls.IMPLICIT, False),
    ]
    assert listeners[5].implicit_account == "alice@contoso.com"
    assert listeners[6].proxy_protocol == (ip_network("192.168.1.5/32"),)


def test_no_file_is_all_defaults() -> None:
    config = read(None, {"HOME": "/home/me"}).config
    assert config.file is None
    assert (config.hostname, config.apps, config.accounts) == ("localhost", {}, ())
    assert config.state_dir == Path("/home/me/.local/state/mailferry")
    assert config.log == Log("info", "text")


def test_where_the_state_is(folder: Folder) -> None:
    folder.environ["STATE_DIRECTORY"] = "/var/lib/mailferry:/var/lib/other"
    assert folder.config("").state_dir == Path("/var/lib/mailferry")
    assert folder.config("state_dir: here\n").state_dir == folder.path / "here"
    assert folder.config("state_dir: ~/there\n").state_dir == Path(folder.environ["HOME"], "there")


def test_the_remaining_keys(folder: Folder) -> None:
    config = folder.config("hostname: mail.example.com\nstore: {kind: sqlite}\nlog: {level: debug, format: json}\n")
    assert (config.file, config.hostname, config.log) == (folder.main, "mail.example.com", Log("debug", "json"))


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        ("hostnam: x", "hostnam", "unknown key"),
        ("hostname: [x]", "hostname", "is a list"),
        ("log: {level: loud}", "log.level", "is 'loud'"),
        ("log: {format: xml}", "log.format", "is 'xml'"),
        ("store: {kind: mysql}", "store.kind", "is 'mysql'"),
        ("store: {kind: postgresql, dsn: x}", "store.kind", "not available in this version"),
        ("store: {dsn: x}", "store.dsn", "not available in this version"),
        ("store: sqlite", "store", "is a single value"),
        ("state_dir: ''", "state_dir", "is empty or holds characters that cannot be printed"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str, problem: str) -> None:
    assert told(folder, f"# first line\n{text}\n") == [("config.yaml", 2, key, problem)]


def test_all_findings_come_at_once_in_the_order_of_their_lines(folder: Folder) -> None:
    folder.write("conf.d/b.yaml", f"accounts:\n- {account('b@c.d', 'none')}\n")
    folder.write("conf.d/a.yaml", "apps:\n  other: {}\n  other: {}\n")
    text = (
        "log: {level: x}\nhostnam: x\naccounts:\n- {login: a}\n"
        f"listeners:\n- {{protocol: imap, port: 0}}\napps:\n  work: {APP}\n"
    )
    assert [(name, line, key) for name, line, key, _ in told(folder, text)] == [
        ("config.yaml", 1, "log.level"),
        ("config.yaml", 2, "hostnam"),
        ("config.yaml", 4, "accounts[0].app"),
        ("config.yaml", 4, "accounts[0].password"),
        ("config.yaml", 4, "accounts[0].mailbox"),
        ("config.yaml", 6, "listeners[0].port"),
        ("a.yaml", 2, "apps.other.application_id"),
        ("a.yaml", 3, "apps.other"),
        ("b.yaml", 2, "accounts[0].app"),
    ]


def test_warnings_come_with_the_configuration_and_beside_errors(folder: Folder) -> None:
    text = f"apps:\n  work: {{application_id: {GUID}, enabled: false}}\n"
    loaded = read(folder.write("config.yaml", text), folder.environ)
    assert [(each.severity, each.key) for each in loaded.findings] == [("warning", "apps.work.enabled")]
    with pytest.raises(ConfigurationError) as raised:
        read(folder.write("config.yaml", text + "x: 1\n"), folder.environ)
    assert [each.severity for each in raised.value.findings] == ["warning", "error"]


def test_conf_d_is_read_after_the_main_file_in_the_order_of_names(folder: Folder) -> None:
    folder.write("conf.d/20.yaml", f"accounts: [{account('c@x.y', 'late')}]\n")
    folder.write("conf.d/10.yaml", f"accounts: [{account('b@x.y')}]\napps: {{late: {APP}}}\n")
    folder.write("conf.d/.hidden.yaml", "nonsense: 1\n")
    folder.write("conf.d/notes.txt", "nonsense: 1\n")
    config = folder.config(f"apps: {{work: {APP}}}\naccounts: [{account('a@x.y')}]\n")
    assert [each.name for each in config.accounts] == ["a@x.y", "b@x.y", "c@x.y"]
    assert [each.app.name for each in config.accounts] == ["work", "work", "late"]
    assert list(config.apps) == ["work", "late"]


def test_conf_d_holds_apps_and_accounts_only(folder: Folder) -> None:
    folder.write("conf.d/x.yaml", "apps: {}\nlisteners: []\naccount: []\n")
    findings = folder.findings("")
    assert [(each.file.name, each.line, each.key, each.remedy) for each in findings] == [
        ("x.yaml", 2, "listeners", "move it to the main configuration file"),
        ("x.yaml", 3, "account", "did you mean accounts?"),
    ]


def test_a_name_defined_in_two_files_names_both_places(folder: Folder) -> None:
    folder.write("conf.d/x.yaml", f"apps:\n  WORK: {APP}\naccounts:\n- {account('[b@x.y, A@X.Y]', 'WORK')}\n")
    main = f"apps:\n  work: {APP}\naccounts:\n- {account('a@x.y')}\n"
    assert told(folder, main) == [
        ("x.yaml", 2, "apps.WORK", f"app 'WORK' is defined twice, first at {folder.main}:2"),
        ("x.yaml", 4, "accounts[0]", f"login 'A@X.Y' is defined twice, first at {folder.main}:4"),
    ]


def test_relative_paths_are_relative_to_the_file_they_stand_in(folder: Folder) -> None:
    folder.write("conf.d/secret", "Q~inner")
    folder.write("secret", "Q~outer", 0o644)
    folder.write("conf.d/x.yaml", f"apps: {{work: {{application_id: {GUID}, client_secret: {{file: secret}}}}}}\n")
    secret = folder.config("").apps["work"].client_secret
    assert secret is not None
    assert secret.value == "Q~inner"


def test_hashes_that_others_can_read_are_one_warning_for_each_file(folder: Folder) -> None:
    text = f"apps: {{work: {APP}}}\naccounts:\n- {account('a@x.y')}\n- {account('b@x.y')}\n"
    [finding] = folder.findings(text, 0o644)
    assert (finding.severity, finding.line, finding.key) == ("warning", 2, "accounts")
    assert finding.remedy == f"chmod 600 {folder.main}"


def test_files_that_cannot_be_read(folder: Folder) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.yaml:1: cannot be opened: no such file or directory; "):
        read(folder.main, folder.environ)
    folder.main.write_bytes(b"hostname: x\n# \xff\n")
    with pytest.raises(ConfigurationError, match=r"config\.yaml:2: holds a character that is not UTF-8; "):
        read(folder.main, folder.environ)
    folder.main.write_bytes(b"#" * (8 * 2**20 + 1))
    with pytest.raises(ConfigurationError, match=r"config\.yaml:1: is larger than 8388608 octets; "):
        read(folder.main, folder.environ)
    folder.main.unlink()
    os.mkfifo(folder.main)
    with pytest.raises(ConfigurationError, match=r"config\.yaml:1: is not a regular file; "):
        read(folder.main, folder.environ)


def test_a_conf_d_that_is_no_folder(folder: Folder) -> None:
    folder.write("conf.d", "")
    assert told(folder, "") == [("conf.d", 1, "", "cannot be listed: not a directory")]


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder: Folder) -> None:
    folder.main.write_bytes(b"\xef\xbb\xbfhostname: mail\n")
    assert read(folder.main, folder.environ).config.hostname == "mail"


scalars = st.one_of(
    st.sampled_from(
        ["work", GUID, HASH, "off", "localhost", "0.0.0.0:1", "https://h/t", "http://[", "1.2.3.4/33", "~"]
    ),
    st.sampled_from([None, True, False, 0, -1, 1143, 10**30, 1.5, "x" * 5_000, "../..", "a@b.c", "$scrypt$"]),
    st.text(max_size=12),
)
trees = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SERVED, *NOT_SERVED, "scopes", "dsn"]) | scalars, inner, max_size=6)
    ),
    max_leaves=24,
)
documents = st.one_of(
    st.dictionaries(st.sampled_from(SERVED[:10]), trees, max_size=6).map(yaml.safe_dump).map(str.encode),
    trees.map(yaml.safe_dump).map(str.encode),
    st.text().map(str.encode),
    st.binary(),
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(main=documents, other=documents)
def test_whatever_stands_there_reading_ends_in_a_configuration_or_findings(
    folder: Folder, main: bytes, other: bytes
) -> None:
    folder.write("conf.d/x.yaml", "").write_bytes(other)
    folder.write("config.yaml", "").write_bytes(main)
    findings: Sequence[Finding] = ()
    try:
        config = read(folder.main, folder.environ).config
    except ConfigurationError as error:
        findings = error.findings
    assert any(finding.severity == "error" for finding in findings) or config.file == folder.main
    assert all(str(finding).startswith(str(folder.path)) for finding in findings)
    assert all(len(str(finding).splitlines()) == 1 for finding in findings)
