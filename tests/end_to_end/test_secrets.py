"""No secret is written down: not in the log at debug level, not on a terminal, not open at rest.

Every ferry looks for its own at its end (`Ferry.close`); here is one that did everything that handles a secret, and
the proof that the search finds what it looks for.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from proxy.demo.identity import Failure
from tests.end_to_end import refused
from tests.end_to_end.ferry import Ferry
from tests.end_to_end.programs import Curl, Security, swaks


def test_case_67_nothing_secret_is_written_down(new_ferry: Ferry, tmp_path: Path) -> None:
    new_ferry.serve()
    identity = new_ferry.host.identity
    people = [new_ferry.host.new_person() for _ in range(3)]
    for person, way in zip(people, ("paste", "browser", "device"), strict=True):
        new_ferry.account_add(person)
        new_ferry.sign_in(person, way)  # type: ignore[arg-type]
    person = people[0]
    password = new_ferry.passwords[person.upn]
    new_ferry.passwords["a wrong one"] = "Wrong-but-secret-all-the-same"
    wrong = new_ferry.passwords["a wrong one"]
    data = tmp_path / "message"
    data.write_bytes(b"Subject: x\n\nx\n")
    for mechanism in ("PLAIN", "LOGIN"):
        assert swaks(new_ferry, person.upn, password, Security.PLAIN, mechanism, data).exit_code == 0
        assert swaks(new_ferry, person.upn, wrong, Security.PLAIN, mechanism, data).exit_code != 0
    assert Curl(new_ferry, person.upn, password).read("pop3", Security.TLS).exit_code == 0
    refused.imap(new_ferry, person.upn, wrong)
    refused.pop3(new_ferry, person.upn, wrong)
    assert new_ferry.logs_in(person)
    identity.fail(Failure.HTML_PAGE)
    identity.revoke(person.upn)
    try:
        refused.in_all_protocols(new_ferry, person)
    finally:
        identity.heal()
    new_ferry.stop()
    assert "level: debug" in new_ferry.config.read_text()
    assert new_ferry.log_lines("login accepted")
    assert new_ferry.log_lines("login refused")
    assert len(identity.secrets) > 10
    assert new_ferry.secrets_seen() == []


@pytest.mark.parametrize("before", [b"", b"\0", b"\0\0", b"user=a\x01auth=Bearer "])
def test_the_search_finds_a_secret_in_base64_wherever_it_stands(new_ferry: Ferry, before: bytes) -> None:
    secret = "a-secret-of-some-length"
    new_ferry.passwords["somebody"] = secret
    note = new_ferry.folder / "note"
    note.write_bytes(b"... " + base64.b64encode(before + secret.encode() + b"\0") + b" ...")
    assert new_ferry.secrets_seen() == ["note: in base64"]
    note.write_text(f"... {secret} ...")
    assert new_ferry.secrets_seen() == ["note: in clear"]
    note.unlink()


def test_the_search_finds_a_token_that_was_cut_short(new_ferry: Ferry) -> None:
    token = new_ferry.host.identity.issue(new_ferry.host.new_person().upn)
    new_ferry.passwords["a token"] = token
    note = new_ferry.folder / "note"
    note.write_text(f"token={token[:100]}…")
    assert new_ferry.secrets_seen() == ["note: in clear"]
    note.unlink()
