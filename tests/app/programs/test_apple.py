"""Apple's configuration profile, read by plistlib."""

from __future__ import annotations

import plistlib
from typing import Any

import pytest
from hypothesis import given

from proxy.app.programs.apple import apple
from proxy.app.programs.connection import Connection, Security, Unreachable
from proxy.app.programs.guide import Needs
from tests.app.programs.facts import addresses, connection, printable


def profile(facts: Connection) -> dict[str, Any]:
    (file,) = apple(facts).files
    read: dict[str, Any] = plistlib.loads(file.octets)
    assert read["PayloadType"] == "Configuration"
    return read


def account(facts: Connection) -> dict[str, Any]:
    (mail,) = [each for each in profile(facts)["PayloadContent"] if each["PayloadType"] == "com.apple.mail.managed"]
    return dict(mail)


def test_an_account_with_tls() -> None:
    mail = account(connection())
    assert mail["EmailAccountType"] == "EmailTypeIMAP"
    assert mail["EmailAddress"] == "alice@contoso.com"
    for which, port in (("Incoming", 1143), ("Outgoing", 1587)):
        assert mail[f"{which}MailServerHostName"] == "localhost"
        assert mail[f"{which}MailServerPortNumber"] == port
        assert mail[f"{which}MailServerUseSSL"] is True
        assert mail[f"{which}MailServerAuthentication"] == "EmailAuthPassword"
        assert mail[f"{which}MailServerUsername"] == "alice@contoso.com"
    assert mail["OutgoingPasswordSameAsIncomingPassword"] is True
    assert not any(key.endswith("Password") and key != "OutgoingPasswordSameAsIncomingPassword" for key in mail)


def test_the_certificate_is_in_it_where_it_is_needed() -> None:
    (root,) = [each for each in profile(connection())["PayloadContent"] if "root" in each["PayloadType"]]
    assert root["PayloadContent"] == b"MIIB"
    plain = profile(connection(offers=(Security.PLAIN,)))
    assert [each["PayloadType"] for each in plain["PayloadContent"]] == ["com.apple.mail.managed"]


def test_every_payload_has_an_identity_which_stays() -> None:
    first, again, other = profile(connection()), profile(connection()), profile(connection("bob"))
    identities = [each["PayloadUUID"] for each in (first, *first["PayloadContent"])]
    assert len(set(identities)) == 3
    assert first == again
    assert other["PayloadUUID"] != first["PayloadUUID"]


def test_it_knows_no_starttls() -> None:
    with pytest.raises(Unreachable):
        apple(connection(offers=(Security.STARTTLS,)))


def test_without_tls_the_steps_warn() -> None:
    texts = [step.text for part in apple(connection(offers=(Security.PLAIN,))).parts for step in part.steps]
    assert any("Allow insecure authentication" in text for text in texts)
    needs = [step.needs for part in apple(connection()).parts for step in part.steps]
    assert Needs.CERTIFICATE in needs


def test_pop3_and_no_smtp() -> None:
    facts = connection(protocols=("pop3",))
    mail = account(facts)
    assert mail["EmailAccountType"] == "EmailTypePOP"
    assert not any(key.startswith("Outgoing") for key in mail)
    assert "smtp is switched off." in apple(facts).notes


@given(printable, addresses)
def test_it_holds_the_login(login: str, mailbox: str) -> None:
    mail = account(connection(login, mailbox))
    assert mail["IncomingMailServerUsername"] == mail["OutgoingMailServerUsername"] == login
    assert mail["EmailAddress"] == mailbox
