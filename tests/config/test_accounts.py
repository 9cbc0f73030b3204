from __future__ import annotations

from ipaddress import ip_network

import pytest

from proxy.config import Account, LocalPassword
from tests.config.conftest import GUID, HASH, Folder

APPS = f"apps: {{work: {{application_id: {GUID}}}}}\n"
SALT_AND_HASH = HASH.split("p=1")[1]


def account(text: str, password: str = HASH) -> str:
    return f"{APPS}accounts:\n- app: work\n  password: {password}\n  {text}\n"


def told(folder: Folder, text: str) -> tuple[str, int, str, str]:
    finding = folder.finding(text)
    return finding.severity, finding.line, finding.key, finding.problem


def test_the_defaults(folder: Folder) -> None:
    config = folder.config(account("login: Alice@contoso.com"))
    assert config.accounts == (
        Account(
            logins=("Alice@contoso.com",),
            app=config.apps["work"],
            passwords=(LocalPassword(HASH, "main", ("imap", "pop3", "smtp"), ()),),
            mailbox="Alice@contoso.com",
            sign_in="Alice@contoso.com",
            protocols=("imap", "pop3", "smtp"),
            imap_connections=16,
            smtp_connections=3,
            messages_per_minute=30,
        ),
    )
    assert config.accounts[0].app is config.apps["work"]


def test_every_key(folder: Folder) -> None:
    passwords = f"[{HASH!r}, {{hash: {HASH!r}, name: scanner, protocols: [smtp], from: 10.0.0.0/8}}]"
    text = (
        "login: [sales, 'CONTOSO\\alice']\n  mailbox: sales@contoso.com\n  sign_in: alice@contoso.com\n"
        "  protocols: [smtp, imap]\n  imap_connections: 4\n  smtp_connections: 2\n  messages_per_minute: 10"
    )
    [made] = folder.config(account(text, passwords)).accounts
    assert made.logins == ("sales", "CONTOSO\\alice")
    assert made.name == "sales"
    assert (made.mailbox, made.sign_in, made.protocols) == ("sales@contoso.com", "alice@contoso.com", ("imap", "smtp"))
    assert (made.imap_connections, made.smtp_connections, made.messages_per_minute) == (4, 2, 10)
    assert made.passwords == (
        LocalPassword(HASH, "main", ("imap", "pop3", "smtp"), ()),
        LocalPassword(HASH, "scanner", ("smtp",), (ip_network("10.0.0.0/8"),)),
    )
    assert HASH not in repr(made)


def test_who_signs_in_is_the_mailbox_when_nothing_is_said(folder: Folder) -> None:
    [made] = folder.config(account("login: a\n  mailbox: b@c.d")).accounts
    assert (made.mailbox, made.sign_in) == ("b@c.d", "b@c.d")


@pytest.mark.parametrize(
    ("phc", "part"),
    [
        ("$scrypt$ln=18,r=8,p=1", "cost ln=18 is not from 10 to 17"),
        ("$scrypt$ln=9,r=8,p=1", "cost ln=9 is not from 10 to 17"),
        ("$scrypt$ln=999,r=8,p=1", "cost ln=999 is not from 10 to 17"),
        ("$scrypt$ln=14,r=17,p=1", "cost r=17 is not from 1 to 16"),
        ("$scrypt$ln=14,r=0,p=1", "cost r=0 is not from 1 to 16"),
        ("$scrypt$ln=14,r=8,p=5", "cost p=5 is not from 1 to 4"),
        ("$scrypt$ln=16,r=1,p=1", "cost ln=16 is too high for r=1"),
        ("$scrypt$ln=9999,r=8,p=1", "is not a scrypt hash"),
        ("$scrypt$r=8,ln=14,p=1", "is not a scrypt hash"),
        ("$scrypt$ln=14,r=8", "is not a scrypt hash"),
        ("$argon2id$v=19$m=65536,t=3,p=4", "is not a scrypt hash"),
    ],
)
def test_bad_hashes(folder: Folder, phc: str, part: str) -> None:
    severity, line, key, problem = told(folder, account("login: a@b.c", phc + SALT_AND_HASH))
    assert (severity, line, key) == ("error", 4, "accounts[0].password")
    assert part in problem


@pytest.mark.parametrize("phc", ["$scrypt$ln=10,r=1,p=1", "$scrypt$ln=15,r=1,p=1", "$scrypt$ln=17,r=16,p=4"])
def test_costs_at_their_bounds(folder: Folder, phc: str) -> None:
    assert folder.findings(account("login: a@b.c", phc + SALT_AND_HASH)) == []


@pytest.mark.parametrize(
    "end",
    ["$abc$" + "A" * 43, "$" + "A" * 22 + "$abc", "$" + "A" * 21 + "$" + "A" * 43, "$" + "A" * 22 + "$" + "A" * 87],
)
def test_salt_and_hash_have_their_sizes(folder: Folder, end: str) -> None:
    assert told(folder, account("login: a@b.c", "$scrypt$ln=14,r=8,p=1" + end))[:3] == (
        "error",
        4,
        "accounts[0].password",
    )


@pytest.mark.parametrize("written", ["hunter2", "{hash: hunter2}", "[[hunter2]]", '"hunter2\\n"'])
def test_a_password_in_plain_text_is_refused_and_not_shown(folder: Folder, written: str) -> None:
    finding = folder.finding(account("login: a@b.c", written))
    assert (finding.severity, finding.line) == ("error", 4)
    assert finding.key.startswith("accounts[0].password")
    assert "hunter2" not in str(finding)
    assert "mailferry password --hash" in finding.remedy


def test_two_passwords_of_one_name(folder: Folder) -> None:
    found = told(folder, account("login: a@b.c", f"\n  - {HASH}\n  - hash: {HASH}\n    name: main"))
    assert found == ("error", 6, "accounts[0].password[1]", "a second password named 'main'")


@pytest.mark.parametrize("missing", ["login", "app", "password"])
def test_what_an_account_needs(folder: Folder, missing: str) -> None:
    keys = {"login": "a@b.c", "app": "work", "password": f"'{HASH}'"}
    text = ", ".join(f"{key}: {value}" for key, value in keys.items() if key != missing)
    assert told(folder, f"{APPS}accounts:\n- {{{text}}}\n") == ("error", 3, f"accounts[0].{missing}", "is missing")


def test_a_device_needs_a_hash(folder: Folder) -> None:
    found = told(folder, account("login: a@b.c", "{name: scanner}"))
    assert found == ("error", 4, "accounts[0].password.hash", "is missing")


def test_an_unknown_app_names_the_nearest(folder: Folder) -> None:
    finding = folder.finding(f"{APPS}accounts:\n- {{login: a@b.c, app: wrok, password: '{HASH}'}}\n")
    assert (finding.line, finding.key, finding.problem) == (3, "accounts[0].app", "there is no app 'wrok'")
    assert finding.remedy == "did you mean work?"


def test_an_app_that_is_wrong_is_still_known(folder: Folder) -> None:
    text = f"apps: {{work: {{application_id: x}}}}\naccounts:\n- {{login: a@b.c, app: work, password: '{HASH}'}}\n"
    assert folder.finding(text).key == "apps.work.application_id"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("login: alice", "mailbox"),
        ("login: a@b.c\n  mailbox: b", "mailbox"),
        ("login: a@b.c\n  sign_in: b", "sign_in"),
        ("login: a@b.c\n  protocols: [imap, nntp]", "protocols[1]"),
        ("login: a@b.c\n  imap_connections: 0", "imap_connections"),
        ("login: a@b.c\n  smtp_connections: 10001", "smtp_connections"),
        ("login: a@b.c\n  messages_per_minute: many", "messages_per_minute"),
        ("login: a@b.c\n  max_connections: 3", "max_connections"),
        (f"login: {'a' * 253}@b", "login"),
    ],
)
def test_wrong_values(folder: Folder, text: str, key: str) -> None:
    severity, line, at, _ = told(folder, account(text))
    assert (severity, at) == ("error", f"accounts[0].{key}")
    assert line == (6 if "\n" in text else 3 if key == "mailbox" else 5)


def test_a_wrong_network_of_a_password(folder: Folder) -> None:
    found = told(folder, account("login: a@b.c", f"{{hash: '{HASH}', from: [1.2.3.4/8]}}"))
    assert found[:3] == ("error", 4, "accounts[0].password.from[0]")


def test_a_login_in_another_case_is_the_same_login(folder: Folder) -> None:
    text = account("login: Alice@contoso.com") + f"- {{login: alice@CONTOSO.com, app: work, password: '{HASH}'}}\n"
    assert told(folder, text) == (
        "error",
        6,
        "accounts[1]",
        f"login 'alice@CONTOSO.com' is defined twice, first at {folder.main}:3",
    )
    assert told(folder, account("login: [a@b.c, A@b.c]"))[:3] == ("error", 3, "accounts[0]")
