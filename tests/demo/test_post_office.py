"""The practice mailbox's folders: what lies in them at first, what arrives, and what they do not take."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default

import pytest

from proxy.demo import post_office
from proxy.demo.post_office import INBOX, SENT, WELCOME, Folder, Full, PostOffice

ALICE = "alice@contoso.com"


def test_a_mailbox_begins_with_readable_letters() -> None:
    letters = [message_from_bytes(m.data, policy=default) for m in PostOffice().open(ALICE)[INBOX].messages]
    assert [letter["Subject"] for letter in letters] == [WELCOME, "Write to anybody", "Grüße aus Kiel ⚓"]
    assert all(letter["To"] == ALICE and not letter.defects for letter in letters)
    assert "fünf Schiffe" in letters[2].get_content()


def test_letters_are_plain_lines_that_curl_can_show() -> None:
    for message in PostOffice().open(ALICE)[INBOX].messages:
        assert message.data.isascii()
        assert all(len(line) <= 78 for line in message.data.split(b"\r\n"))
        assert b"\n" not in message.data.replace(b"\r\n", b"")


def test_a_name_in_any_case_is_one_mailbox() -> None:
    office = PostOffice()
    assert office.open("Alice@Contoso.COM") is office.open(ALICE)
    assert office.open("bob@contoso.com") is not office.open(ALICE)


def test_what_is_delivered_lies_in_both_folders() -> None:
    office = PostOffice()
    office.deliver(ALICE, b"Subject: x\r\n\r\n")
    folders = office.open(ALICE)
    assert folders[INBOX].messages[-1].flags == set()
    assert [(m.data, m.flags) for m in folders[SENT].messages] == [(b"Subject: x\r\n\r\n", {r"\Seen"})]


def test_uids_are_never_used_again() -> None:
    folder = Folder("x")
    first = folder.add(b"1", set())
    folder.remove({first})
    assert folder.add(b"2", set()).uid == first.uid + 1


def test_a_folder_is_full_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_office, "MAX_FOLDER_MESSAGES", 1)
    folder = Folder("x")
    folder.add(b"1", set())
    with pytest.raises(Full):
        folder.add(b"2", set())
