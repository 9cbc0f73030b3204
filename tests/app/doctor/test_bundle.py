"""The report to hand on: `bundle.py`. Every kind of secret is planted, and no piece of one comes out."""

from __future__ import annotations

import base64
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.accounts.passwords import hash_password
from proxy.app.answers import DeskError
from proxy.app.doctor.bundle import report, write
from proxy.app.doctor.findings import Finding, fail, ok
from proxy.app.doctor.scene import Scene
from proxy.app.verbs.terminal import UsageError
from proxy.login import Fault
from tests.app.doctor.scenes import FakeDesk, scene_of
from tests.app.home import Home

PIECE = 8  # characters of a secret in a row; a report has none by chance, as the secrets are random

CLIENT_SECRET = "Kq~8Q" + secrets.token_urlsafe(26)  # as Entra's look
LOCAL_PASSWORD = secrets.token_urlsafe(18)
ACCESS_TOKEN = f"eyJ0{secrets.token_urlsafe(40)}.{secrets.token_urlsafe(200)}.{secrets.token_urlsafe(40)}"
PERSONAL_TOKEN = "EwB" + base64.b64encode(secrets.token_bytes(200)).decode()
REFRESH_TOKEN = "1." + secrets.token_urlsafe(120)
AUTHORIZATION_CODE = "0.A" + secrets.token_urlsafe(60)
USER_CODE = "FQ7K9WXRT"
PROXY_PASSWORD = secrets.token_urlsafe(9)
MISPLACED = secrets.token_urlsafe(15)  # somebody pasted it into the wrong key
TENANT = "5a3f1c77-2d41-4a6e-9f3b-7c1d2e3f4a5b"
APPLICATION = "b4c5d6e7-1122-4334-8556-778899aabbcc"
CORRELATION = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"
PEOPLE = ("jocasta.fairweather@northwindtraders.example", "shared-inbox@northwindtraders.example")


@pytest.fixture
def planted(home: Home) -> Home:
    """A configuration with secrets in it, a key, and names."""
    (home.folder / "conf.d").mkdir()
    app = home.folder / "conf.d" / "app-northwind.yaml"
    app.write_text(
        "apps:\n  northwind:\n"
        f"    application_id: {APPLICATION}\n    account_types: {TENANT}\n    client_secret: '{CLIENT_SECRET}'\n"
    )
    account = home.folder / "conf.d" / "account-one.yaml"
    account.write_text(
        f"accounts:\n  - login: {PEOPLE[0]}\n    app: northwind\n    mailbox: {PEOPLE[1]}\n"
        f"    password:\n      - {{name: scanner, hash: '{hash_password(LOCAL_PASSWORD)}'}}\n"
    )
    for file in (app, account):
        file.chmod(0o600)
    home.run("account", "list")  # makes the key
    return home


def findings() -> list[Finding]:
    """What upstreams and people may have said, with everything in it."""
    texts = (
        f"NO AUTHENTICATE failed for {PEOPLE[0]} with {ACCESS_TOKEN}",
        f"the reply quoted {base64.b64encode(f'user={PEOPLE[0]}'.encode()).decode()} and {PERSONAL_TOKEN}",
        f"sent back to http://localhost:43211/?code={AUTHORIZATION_CODE}&state=abcdefgh1234",
        f"enter the code {USER_CODE} at https://microsoft.com/devicelogin",
        f"correlation id {CORRELATION}, tenant {TENANT}, user {quote(PEOPLE[1])}",
        f"It said: {REFRESH_TOKEN}",
        f"{CLIENT_SECRET} was refused for {APPLICATION}; so was {LOCAL_PASSWORD}",
    )
    made = [fail("x", f"Sign-in of {PEOPLE[0]}", text, Fault.EXCHANGE, text, details=[text]) for text in texts]
    return [*made, ok("y", "Ports", "Free for the daemon: 1143.")]


def row() -> dict[str, object]:
    return {
        "login": PEOPLE[0],
        "state": "authentication_error",
        "last_error": f"Sign in as {PEOPLE[0]} with {ACCESS_TOKEN}; code {USER_CODE}; id {CORRELATION}",
        "remedy": f"mailferry sign-in {PEOPLE[0]}",
        "correlation_id": CORRELATION,
        "passwords": [LOCAL_PASSWORD],
    }


BESIDE_A_BROKEN_ONE = {"warnings": {"lines": [ACCESS_TOKEN]}, "accounts": {"accounts": [row()]}}


def scene_for(home: Home) -> Scene:
    lines = [
        f'2026-11-30T19:12:01.000Z warning login refused login={PEOPLE[0]} peer=203.0.113.77 text="code {USER_CODE}"',
        f'{{"event": "login refused", "login": "mallory-the-guesser", "peer": "203.0.113.77", "x": "{ACCESS_TOKEN}"}}',
    ]
    accounts = [row(), {**row(), "login": "somebody@else.example"}]
    desk = FakeDesk({"accounts": {"accounts": accounts}, "warnings": {"lines": lines}})
    environ = {"HTTPS_PROXY": f"http://jocasta:{PROXY_PASSWORD}@proxy.northwindtraders.example:3128", "SECRET": "x"}
    about = {"pid": 4711, "version": "0.9", "descriptors": {"limit": 1, "used": 1}}
    return scene_of(home, environ=environ, ask=desk.ask, about=about)


def forms(secret: str) -> Iterator[str]:
    """As it is, in base64 at each of three offsets (both alphabets), in hex, and percent-encoded."""
    yield secret
    yield secret.encode().hex()
    yield quote(secret, safe="")
    for offset in range(3):
        octets = bytes(offset) + secret.encode()
        octets = octets[: len(octets) - len(octets) % 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(octets).decode()[4 if offset else 0 :]


def pieces_of(secret: str, text: str) -> list[str]:
    found = []
    for form in forms(secret):
        found += [form[at : at + PIECE] for at in range(max(1, len(form) - PIECE + 1)) if form[at : at + PIECE] in text]
    return found


@pytest.mark.parametrize("broken", [False, True])
def test_no_piece_of_a_secret_comes_out(planted: Home, broken: bool) -> None:
    known = [planted.config().accounts[0].passwords[0].hash, (planted.state_dir / "mailferry.key").read_text().strip()]
    if broken:
        planted.file.write_text(
            planted.file.read_text()
            + f"hostname: '{MISPLACED} {MISPLACED}'\n"
            + f"upstreams: {{imap: {{host: '{CLIENT_SECRET}', port: {MISPLACED}}}}}\n{MISPLACED}: 1\n"
        )
    scene = scene_for(planted)
    scene.ask = scene_for(planted).ask if not broken else FakeDesk(BESIDE_A_BROKEN_ONE).ask
    assert scene.broken is broken
    text = report(scene, findings())
    planted_secrets = (
        *(CLIENT_SECRET, LOCAL_PASSWORD, ACCESS_TOKEN, PERSONAL_TOKEN, REFRESH_TOKEN, AUTHORIZATION_CODE, USER_CODE),
        *(PROXY_PASSWORD, MISPLACED, TENANT, APPLICATION, CORRELATION, *PEOPLE, *known),
    )
    for number, secret in enumerate(planted_secrets):
        assert pieces_of(secret, text) == [], f"secret number {number}"
    for name in ("northwindtraders", "jocasta", "fairweather", "shared-inbox", "$scrypt", "mallory", "203.0.113"):
        assert name not in text.casefold()


def test_the_search_finds_what_is_there() -> None:
    """Else the test above could not fail."""
    for form in forms(CLIENT_SECRET):
        assert pieces_of(CLIENT_SECRET, f"xx {form[3:]} yy")


def test_what_a_helper_needs_is_there(planted: Home) -> None:
    text = report(scene_for(planted), findings())
    for words in (
        *("mailferry 0.", "Python 3.", "twisted 2", "msal 1"),
        *('"client_secret": "(left out)"', '"hash": "(left out)"', '"protocol": "imap"', '"flow": "delegated"'),
        *("outlook.office365.com:993 implicit", "smtp.office365.com:587 starttls"),
        *("FAIL  Sign-in of address-1@domain-1", "Free for the daemon: 1143.", '"state": "authentication_error"'),
        *("Read it before you hand it on", "warning login refused login=address-1@domain-1", '"version": "0.9"'),
    ):
        assert words in text, words


def test_only_accounts_that_were_examined(planted: Home) -> None:
    assert "else.example" not in report(scene_for(planted), [])


def test_a_desk_that_cannot_be_asked(planted: Home) -> None:
    text = report(scene_of(planted, ask=FakeDesk({"accounts": DeskError("no")}).ask), [])
    assert "## Accounts" in text


def test_it_is_private_and_replaces_an_old_one(planted: Home, tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_text("old")
    file.chmod(0o644)
    assert write(file, scene_for(planted), []) == file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("## mailferry's report")


def test_a_place_that_cannot_be_written(planted: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        write(tmp_path / "nowhere" / "report.txt", scene_for(planted), [])
