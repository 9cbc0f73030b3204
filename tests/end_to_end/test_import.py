"""Moving in from another program: its tokens are taken over, and the mail program goes on with the password it has."""

from __future__ import annotations

import json
import secrets
import smtplib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.app.importing.granting import granted_elsewhere
from tests.app.importing.samples import account, options, seal_aes, server, token_file, tokens
from tests.end_to_end.ferry import Ferry, Told
from tests.servers.child import open_folder
from tests.servers.mailhost import MailHost, Person


class Mover:
    """A ferry that knows nobody yet, and an old program's folder beside it."""

    def __init__(self, ferry: Ferry, old: Path) -> None:
        self.ferry = ferry
        self.old = old
        self.identity = ferry.host.identity
        self.identity.add_app(ferry.application_id)

    def signed_in_elsewhere(self, person: Person) -> str:
        """The refresh token that the old program holds."""
        self.identity.sign_in_as(person.upn)
        token = granted_elsewhere(self.identity, self.ferry.application_id)
        self.identity.secrets.add(token)
        return token

    def section(self, person: Person, password: str) -> str:
        more = tokens(self.signed_in_elsewhere(person), password)
        return account(person.upn, authority=self.identity.authority, client_id=self.ferry.application_id, **more)

    def write(self, name: str, text: str) -> None:
        (self.old / name).write_text(text)

    def move_in(self, *passwords: str, exit_code: int = 0) -> Told:
        command = self.ferry.start(
            *("import", str(self.old), "--ca-file", str(self.identity.ca_file), "--passwords-stdin")
        )
        for password in passwords:
            command.write(password)
        return command.end(exit_code)


@pytest.fixture
def mover(mail_host: MailHost, tmp_path: Path) -> Iterator[Mover]:
    # The old program's folder is outside of what must hold no secret: its tokens may stand in clear there.
    with open_folder("mf-old-") as old, closing(Ferry(tmp_path, mail_host)) as ferry:
        yield Mover(ferry, old)


def person_with_old_password(ferry: Ferry) -> Person:
    person = ferry.host.new_person()
    ferry.passwords[person.upn] = secrets.token_urlsafe(18)
    return person


def sends(ferry: Ferry, person: Person) -> bool:
    with smtplib.SMTP("localhost", ferry.ports["smtp"], timeout=60) as client:
        client.login(person.upn, ferry.passwords[person.upn])
        refused = client.sendmail(person.upn, [person.upn], f"Subject: moved in\r\n\r\nfrom {person.upn}\r\n")
    return refused == {} and b"moved in" in ferry.host.delivered(person)[0]


@pytest.mark.parametrize("beside", [True, False], ids=["beside the daemon", "before the daemon starts"])
def test_the_old_password_logs_in_without_a_new_sign_in(mover: Mover, beside: bool) -> None:
    ferry = mover.ferry
    alice, bob = person_with_old_password(ferry), person_with_old_password(ferry)
    sections = [mover.section(person, ferry.passwords[person.upn]) for person in (alice, bob)]
    mover.write("emailproxy.config", "".join([server(), server("SMTP", 1587), *sections, options()]))
    if beside:
        ferry.serve()
    told = mover.move_in(*ferry.passwords.values())
    assert "taken otherwise" in told.output  # line by line
    assert f"signed in as {bob.upn}" in told.output
    assert "port: 1993" in told.output
    if not beside:
        ferry.serve()
    for person in (alice, bob):
        assert ferry.logs_in(person)
        assert sends(ferry, person)
        assert ferry.state(person) == "connected"
    assert ferry.log_lines("login refused") == []
    again = mover.move_in(*ferry.passwords.values())
    assert again.output.count("is there already") == 2


def test_davmails_password_logs_in(mover: Mover) -> None:
    ferry = mover.ferry
    person = person_with_old_password(ferry)
    login_url, _, tenant = mover.identity.authority.rpartition("/")
    lines = {
        "davmail.loginUrl": login_url,
        "davmail.oauth.tenantId": tenant,
        "davmail.oauth.clientId": ferry.application_id,
        f"davmail.oauth.{person.upn}.refreshToken": seal_aes(
            mover.signed_in_elsewhere(person), ferry.passwords[person.upn]
        ),
    }
    mover.write("davmail.properties", "".join(f"{key}={value}\n" for key, value in lines.items()))
    ferry.serve()
    mover.move_in(ferry.passwords[person.upn])
    assert ferry.logs_in(person)


def test_postfix_gets_a_password_of_its_own(mover: Mover) -> None:
    ferry = mover.ferry
    person = ferry.host.new_person()
    endpoint = f"{mover.identity.authority}/oauth2/v2.0/token"
    values = {"client_id": ferry.application_id, "client_secret": "", "token_endpoint": endpoint}
    mover.write("sasl-xoauth2.conf", json.dumps(values))
    mover.write("sasl_passwd", f"[smtp.office365.com]:587 {person.upn}:/etc/tokens/relay\n")
    mover.write("relay", token_file(mover.signed_in_elsewhere(person)))
    ferry.serve()
    ferry._printed_password(person, "import", str(mover.old), "--ca-file", str(mover.identity.ca_file))
    assert sends(ferry, person)
    assert not ferry.logs_in(person), "Postfix's token is for sending alone"
