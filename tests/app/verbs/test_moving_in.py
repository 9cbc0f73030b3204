"""`moving_in.py` and `takeover.py`: the verb `import` at the stand-in sign-in service, with a daemon and without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from proxy.accounts.passwords import verify_hash
from proxy.accounts.store import lock_state_folder
from proxy.app.answers import DeskError
from proxy.app.counter import Counter
from proxy.demo.identity import IdentityProvider
from tests.app.home import ALICE, APPLICATION_ID, DESK, ROBOT_ID, SECRET, Beside, Home, Told, Turning, printed_password
from tests.app.importing.granting import granted_elsewhere
from tests.app.importing.samples import PASSWORD, account, options, seal, seal_aes, server, token_file, tokens

BOB = "bob@contoso.com"
SALES = "sales@contoso.com"


class Moving:
    """A home, and the old program's files beside it."""

    def __init__(self, home: Home, identity: IdentityProvider) -> None:
        self.home = home
        self.identity = identity
        self.old = home.folder / "old"
        self.old.mkdir()

    def token(self, person: str = ALICE) -> str:
        self.identity.sign_in_as(person)
        return granted_elsewhere(self.identity, APPLICATION_ID)

    def section(self, login: str = ALICE, **more: str) -> str:
        return account(login, authority=self.identity.authority, client_id=APPLICATION_ID, **more)

    def write(self, *parts: str, name: str = "emailproxy.config") -> None:
        (self.old / name).write_text("".join(parts))

    def run(self, *more: str, passwords: tuple[str, ...] = (), exit_code: int = 0) -> Told:
        lines = iter(f"{password}\n" for password in passwords)
        if passwords:
            more = (*more, "--passwords-stdin")
        trust = ("--ca-file", str(self.identity.ca_file))
        told = self.home.run(
            "import", str(self.old), *trust, *more, types=lambda _: next(lines, ""), exit_code=exit_code
        )
        assert PASSWORD not in told.output + told.errors
        return told

    def json(self, *more: str, passwords: tuple[str, ...] = (), exit_code: int = 0) -> Any:
        return json.loads(self.run(*more, "--json", passwords=passwords, exit_code=exit_code).output)

    def outcomes(self, *more: str, passwords: tuple[str, ...] = (), exit_code: int = 0) -> list[tuple[str, str, str]]:
        """Kind, name and verdict of each."""
        told = self.json(*more, passwords=passwords, exit_code=exit_code)["outcomes"]
        return [(each["kind"], each["name"], each["verdict"]) for each in told]

    def state(self, login: str = ALICE) -> str:
        rows = json.loads(self.home.run("account", "list", "--json").output)
        return str(next(row["state"] for row in rows if row["login"] == login))

    def files(self) -> list[str]:
        folder = self.home.folder / "conf.d"
        return sorted(file.name for file in folder.iterdir()) if folder.exists() else []

    def keeps(self, password: str, login: str = ALICE) -> bool:
        found = self.home.config().account(login)
        assert found is not None
        return any(verify_hash(password.encode(), local.hash) for local in found.passwords)


@pytest.fixture
def moving(home: Home, identity: IdentityProvider) -> Moving:
    identity.add_person(BOB)
    return Moving(home, identity)


@pytest.fixture
def beside(moving: Moving, turning_reactor: Turning) -> Iterator[Beside]:
    with closing(Beside(moving.home, turning_reactor)) as office:
        yield office


def test_a_program_that_signed_in_needs_no_change(moving: Moving) -> None:
    moving.write(server(), moving.section(**tokens(moving.token())), options())
    told = moving.run(passwords=(PASSWORD,))
    assert f"signed in as {ALICE}" in told.output
    assert "the mail program keeps its password" in told.output
    assert "port: 1993" in told.output
    assert moving.keeps(PASSWORD)
    assert moving.state() != "sign_in_needed"
    assert moving.files() == ["account-alice@contoso.com.yaml", "app-imported.yaml"]


def test_so_it_is_beside_a_daemon(moving: Moving, beside: Beside) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    assert moving.outcomes(passwords=(PASSWORD,)) == [
        ("app", "imported", "taken"),
        ("account", ALICE, "taken"),
        ("token", ALICE, "taken"),
    ]
    assert moving.state() != "sign_in_needed"
    assert beside.reloads >= 1


def test_a_second_run_changes_nothing(moving: Moving) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    moving.run(passwords=(PASSWORD,))
    before = {name: moving.home.written(name) for name in moving.files()}
    told = moving.json(passwords=(PASSWORD,))
    assert [each["text"] for each in told["outcomes"]] == ["is there already"]
    assert {name: moving.home.written(name) for name in moving.files()} == before


def test_a_second_run_goes_on_where_the_first_one_stopped(moving: Moving) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    first = moving.run()
    assert "--passwords-stdin" in first.output
    assert f"mailferry sign-in {ALICE}" in first.output
    new = printed_password(first)
    assert moving.keeps(new)
    assert moving.state() == "sign_in_needed"
    assert moving.outcomes(passwords=(PASSWORD,))[-1] == ("token", ALICE, "taken")
    assert moving.keeps(new)
    assert moving.state() != "sign_in_needed"


def test_a_wrong_password_takes_no_token(moving: Moving) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    told = moving.run(passwords=("wrong",), exit_code=1)
    assert "does not open" in told.output
    assert not moving.keeps("wrong")
    assert moving.state() == "sign_in_needed"


def test_one_password_serves_several_accounts(moving: Moving) -> None:
    alice, bob = tokens(moving.token()), tokens(moving.token(BOB))
    moving.write(moving.section(**alice), moving.section(BOB, **bob))
    assert ("token", BOB, "taken") in moving.outcomes(passwords=(PASSWORD,))


def test_each_password_on_its_line(moving: Moving) -> None:
    alice, bob = tokens(moving.token()), tokens(moving.token(BOB), password="bob's own")
    moving.write(moving.section(**alice), moving.section(BOB, **bob))
    moving.run(passwords=(PASSWORD, "bob's own"))
    assert moving.keeps("bob's own", BOB)


def test_a_token_that_microsoft_refuses_needs_a_sign_in(moving: Moving) -> None:
    moving.write(moving.section(**tokens("1.no-longer-good")))
    told = moving.run(passwords=(PASSWORD,), exit_code=1)
    assert "Microsoft refused it" in told.output
    assert moving.keeps(PASSWORD)
    assert moving.state() == "sign_in_needed"


def test_a_shared_mailbox_is_its_signers(moving: Moving) -> None:
    moving.identity.sign_in_as(BOB)
    token = granted_elsewhere(moving.identity, APPLICATION_ID, "openid profile offline_access")
    moving.write(moving.section(SALES, **tokens(token)))
    told = moving.run(passwords=(PASSWORD,))
    assert f"sign_in: {BOB}" in told.output
    found = moving.home.config().account(SALES)
    assert found is not None
    assert (found.mailbox, found.sign_in) == (SALES, BOB)
    assert moving.state(SALES) != "sign_in_needed"


def test_an_app_with_a_sealed_secret(moving: Moving) -> None:
    more = {**tokens(), "refresh_token": "", "client_secret_encrypted": seal(SECRET), "permission_url": ""}
    robot = account(
        DESK,
        authority="https://login.microsoftonline.com/contoso.com",
        **{**more, "client_id": ROBOT_ID, "oauth2_flow": "client_credentials"},
    )
    moving.write(robot)
    assert "sealed" in moving.run(exit_code=2).errors + moving.run(exit_code=2).output
    assert moving.files() == []
    told = moving.run(passwords=(PASSWORD,))
    assert SECRET not in told.output
    assert SECRET in moving.home.written("app-imported.yaml")
    assert moving.keeps(PASSWORD, DESK)


def test_tokens_of_postfix(moving: Moving) -> None:
    moving.write(
        json.dumps(
            {
                "client_id": APPLICATION_ID,
                "client_secret": "",
                "token_endpoint": f"{moving.identity.authority}/oauth2/v2.0/token",
            }
        ),
        name="sasl-xoauth2.conf",
    )
    moving.write(token_file(moving.token()), name=ALICE)
    told = moving.run()
    assert moving.keeps(printed_password(told))
    assert moving.state() != "sign_in_needed"
    assert "protocols:" in moving.home.written("account-alice@contoso.com.yaml")


def test_tokens_of_davmail(moving: Moving) -> None:
    login_url, _, tenant = moving.identity.authority.rpartition("/")
    moving.write(
        f"davmail.loginUrl={login_url}\ndavmail.oauth.tenantId={tenant}\ndavmail.oauth.clientId={APPLICATION_ID}\n",
        f"davmail.oauth.{ALICE}.refreshToken={seal_aes(moving.token())}\n",
        name="davmail.properties",
    )
    moving.run(passwords=(PASSWORD,))
    assert moving.keeps(PASSWORD)
    assert moving.state() != "sign_in_needed"


def test_davmails_own_app_is_replaced_by_ones_own(moving: Moving) -> None:
    moving.write(f"davmail.oauth.{ALICE}.refreshToken={seal_aes('token')}\n", name="davmail.properties")
    assert "--app NAME" in moving.run(exit_code=2).output
    moving.home.run("import", str(moving.old), "--app", "work", exit_code=2)
    moving.home.add_app()
    assert moving.outcomes("--app", "work") == [("account", ALICE, "taken otherwise"), ("token", ALICE, "not taken")]


# --- dry runs and failures


def test_a_dry_run_writes_nothing(moving: Moving) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    before = sorted(moving.home.folder.rglob("*"))
    told = moving.run("--dry-run", passwords=(PASSWORD,))
    assert "nothing is written" in told.output
    assert "would be written, with the password that it has" in told.output
    assert sorted(moving.home.folder.rglob("*")) == before


def test_an_account_whose_app_cannot_be_written_is_not_written(moving: Moving) -> None:
    files = {"jwt_certificate_path": "/no/such/cert.pem", "jwt_key_path": "/no/such/key.pem"}
    moving.write(moving.section(**files), account("eve@contoso.com"))
    told = moving.outcomes(exit_code=1)
    assert ("app", "imported", "not taken") in told
    assert ("account", ALICE, "not taken") in told
    assert ("account", "eve@contoso.com", "taken otherwise") in told
    assert moving.files() == ["account-eve@contoso.com.yaml", "app-imported-2.yaml"]


def test_an_app_that_no_account_came_with_is_removed_again(moving: Moving) -> None:
    moving.write(moving.section("x" * 300 + "@contoso.com"))
    told = moving.json(exit_code=1)
    assert told["outcomes"][-1]["text"].startswith("removed again")
    assert moving.files() == []


def test_a_catch_all_domain_brings_its_app(moving: Moving) -> None:
    moving.write(moving.section("@contoso.com"), options(allow_catch_all_accounts="True"))
    assert moving.outcomes() == [("app", "imported", "taken")]
    moving.home.add_account(ALICE, "--app", "imported")


def test_nothing_of_use(moving: Moving) -> None:
    moving.write(options())
    assert "nothing was taken over" in moving.run(exit_code=2).errors
    moving.home.run("import", str(moving.old / "missing"), exit_code=2)


def test_a_strangers_text_stays_on_its_line(moving: Moving) -> None:
    moving.write(moving.section(), "[IMAP-1]\nserver_address = \x1b[31mred\u202e\n")
    told = moving.run()
    assert "\x1b" not in told.output
    assert "\u202e" not in told.output


def test_a_held_state_folder_is_found_before_anything_is_written(moving: Moving) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    folder = lock_state_folder(moving.home.state_dir)
    moving.run(passwords=(PASSWORD,), exit_code=5)
    assert moving.files() == []
    folder.release()


def test_a_new_password_is_shown_whatever_comes_after(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    def reload(_: Counter) -> None:
        raise DeskError("The daemon is busy.")

    monkeypatch.setattr(Counter, "reload", reload)
    moving.write(moving.section())
    told = moving.run(exit_code=1)
    assert moving.keeps(printed_password(told))
    assert "is busy" in told.errors


# --- at a terminal


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A person who types these; what they were asked."""

    def type_(*answers: str) -> list[str]:
        asked: list[str] = []
        given = iter(answers)

        def read_line(prompt: str, *, hidden: bool = False) -> str:
            assert hidden
            asked.append(prompt)
            return next(given)

        monkeypatch.setattr("proxy.app.verbs.moving_in.read_line", read_line)
        monkeypatch.setattr("tests.app.home.Typist.isatty", lambda _: True)
        return asked

    return type_


def test_a_person_is_asked_until_the_password_fits(moving: Moving, typed: Callable[..., list[str]]) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    asked = typed("wrong", PASSWORD)
    assert "does not open" in moving.run().errors
    assert [ALICE in prompt for prompt in asked] == [True, True]
    assert moving.keeps(PASSWORD)


def test_a_person_may_give_none(moving: Moving, typed: Callable[..., list[str]]) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    typed("")
    moving.run()
    assert moving.state() == "sign_in_needed"


def test_a_person_is_asked_three_times(moving: Moving, typed: Callable[..., list[str]]) -> None:
    moving.write(moving.section(**tokens(moving.token())))
    typed("wrong", "wrong again", "wrong still")
    moving.run(exit_code=1)
