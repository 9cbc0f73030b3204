"""Accounts and their local passwords on the page: accounts.py and passwords.py."""

from __future__ import annotations

import re

from proxy.login import Fault, LoginRefused, Refusal, Trace
from tests.app.home import ALICE, DESK
from tests.app.page.visitor import Reply, Served, Visitor

BOB = "bob@contoso.com"
ALL = ["imap", "pop3", "smtp"]
FORM = {"login": BOB, "app": "work", "protocols": ALL}
PAGE = "/accounts/bob%40contoso.com"
ALICES = "/accounts/alice%40contoso.com"


def password(page: Reply) -> str:
    found = re.findall(r'<p class="secret">(\S+)</p>', page.text)
    assert len(found) <= 1
    return found[0] if found else ""


def opens(served: Served, login: str, secret: str, protocol: str = "imap") -> bool:
    """Whether the daemon takes this local password."""
    from ipaddress import ip_address

    from proxy.login import Credentials

    async def verify() -> bool:
        try:
            credentials = Credentials(login.encode(), secret.encode())
            await served.beside.office.passdb.verify(credentials, protocol=protocol, peer=ip_address("127.0.0.1"))
        except LoginRefused:
            return False
        return True

    return served.turning.wait(verify)


def test_the_list_tells_how_each_account_is(resident: Visitor) -> None:
    page = resident.get("/accounts")
    assert ALICE in page.words
    assert "Somebody must sign in to Microsoft." in page.words
    assert f"{DESK} connecting" in page.words
    assert "Sessions now 0" in page.words
    assert page.header("refresh") == "30"


def test_an_account_is_added_and_its_password_shown_once(resident: Visitor, served_furnished: Served) -> None:
    page = resident.submit("/accounts/new", FORM)
    secret = password(page)
    assert re.fullmatch(r"\S{24}", secret)
    assert page.header("refresh") == "", "what must be copied stays"
    assert opens(served_furnished, BOB, secret)
    assert secret not in resident.get(PAGE).text
    assert secret not in served_furnished.home.written("account-bob@contoso.com.yaml")


def test_every_error_of_an_account_at_once(resident: Visitor) -> None:
    wrong = {"login": "bob", "app": "none", "mailbox": "nobody", "sign_in": "x y", "protocols": ["imap"]}
    page = resident.post("/accounts/new", wrong)
    assert page.status == 422
    for name in ("app", "mailbox", "sign_in"):
        assert f'id="field-{name}-error"' in page.text, name
    page = resident.post("/accounts/new", {"login": "", "app": "work"})
    assert 'id="field-login-error"' in page.text
    assert 'id="field-protocols-error"' in page.text
    assert "There is an account" in resident.post("/accounts/new", {**FORM, "login": ALICE.upper()}).words


def test_an_account_is_changed(resident: Visitor, served_furnished: Served) -> None:
    assert "Change alice" in resident.get(f"{ALICES}/change").words
    page = resident.submit(f"{ALICES}/change", {"app": "work", "mailbox": "sales@contoso.com", "protocols": ["imap"]})
    assert f"{ALICE} is changed." in page.words
    account = served_furnished.beside.office.config.account(ALICE)
    assert account is not None
    assert (account.mailbox, account.protocols, len(account.passwords)) == ("sales@contoso.com", ("imap",), 1)
    resident.submit(f"{ALICES}/change", {"app": "work", "mailbox": "", "sign_in": "", "protocols": ALL})
    account = served_furnished.home.config().account(ALICE)
    assert account is not None
    assert (account.mailbox, account.protocols) == (ALICE, ("imap", "pop3", "smtp"))
    assert resident.post(f"{ALICES}/change", {"app": "work", "mailbox": "x", "protocols": ALL}).status == 422
    assert resident.post(f"{ALICES}/change", {"app": "work"}).status == 422


def test_an_account_is_removed(resident: Visitor, served_furnished: Served) -> None:
    assert "forgets the account" in resident.get(f"{ALICES}/remove").words
    assert "is forgotten" in resident.submit(f"{ALICES}/remove").words
    assert served_furnished.beside.office.config.account(ALICE) is None
    assert resident.get(ALICES).status == 404


def test_what_went_wrong_is_told_with_fault_and_remedy(resident: Visitor, served_furnished: Served) -> None:
    states, account = served_furnished.beside.office.states, served_furnished.home.config().account(DESK)
    assert account is not None
    refused = LoginRefused(
        Refusal.REFUSED_UPSTREAM,
        "Exchange said no. Switch it on.",
        fault=Fault.EXCHANGE,
        cause="Exchange said no.",
        remedy="Switch it on.",
        who="administrator",
        trace=Trace("AADSTS50105", "11111111-2222-4333-8444-555555555555", "2026-11-30 12:00:00Z"),
    )
    served_furnished.turning.call(lambda: states.login_failed(account, refused))
    for path in ("/accounts", "/accounts/desk%40contoso.com"):
        words = resident.get(path).words
        assert "authentication error" in words
        assert "Exchange said no." in words
        assert "Where it lies: Exchange. Who can mend it: the organisation's administrator." in words
        assert "What to do: Switch it on." in words
        assert "AADSTS50105" in words
        assert "11111111-2222-4333-8444-555555555555" in words


def test_a_new_first_password_ends_the_old_one(resident: Visitor, served_furnished: Served) -> None:
    first = password(resident.submit("/accounts/new", FORM))
    second = password(resident.submit(f"{PAGE}/passwords/new"))
    assert second != first
    assert (opens(served_furnished, BOB, first), opens(served_furnished, BOB, second)) == (False, True)


def test_a_further_password_for_a_device(resident: Visitor, served_furnished: Served) -> None:
    resident.submit("/accounts/new", FORM)
    scanner = {"name": "scanner", "protocols": ["smtp"], "from": "127.0.0.0/8, 10.0.0.0/8"}
    page = resident.submit(f"{PAGE}/passwords", scanner)
    secret = password(page)
    assert "The password for scanner" in page.words
    assert "SMTP From 127.0.0.0/8, 10.0.0.0/8" in page.words
    assert opens(served_furnished, BOB, secret, "smtp")
    assert not opens(served_furnished, BOB, secret, "imap")
    assert "There is a password of this name" in resident.post(f"{PAGE}/passwords", scanner).words
    assert "The password scanner is good no more." in resident.submit(f"{PAGE}/passwords/scanner/remove").words
    assert not opens(served_furnished, BOB, secret, "smtp")


def test_what_is_wrong_with_a_further_password(resident: Visitor) -> None:
    resident.submit("/accounts/new", FORM)
    page = resident.post(f"{PAGE}/passwords", {"name": "", "protocols": ["nonsense"]})
    assert 'id="field-name-error"' in page.text
    assert 'id="field-protocols-error"' in page.text
    page = resident.post(f"{PAGE}/passwords", {"name": "phone", "protocols": ["imap"], "from": "10.0.0.0/99"})
    assert page.status == 422
    assert 'id="field-from-error"' in page.text
    assert resident.post(f"{PAGE}/passwords/main/remove").status == 409, "the only one stays"


def test_no_such_account(resident: Visitor) -> None:
    for path in ("", "/change", "/remove", "/passwords", "/sign-in", "/sign-in/paste", "/sign-in/device/x"):
        assert resident.get(f"/accounts/nobody{path}").status == 404, path
    for path in ("/change", "/remove", "/passwords", "/passwords/new", "/passwords/x/remove", "/sign-out", "/sign-in"):
        assert resident.post(f"/accounts/nobody{path}").status == 404, path


def test_without_an_app_there_is_no_account(visitor: Visitor) -> None:
    assert visitor.get("/accounts/new").header("location") == "/apps/new"
    assert "There is none yet" in visitor.get("/accounts").words
