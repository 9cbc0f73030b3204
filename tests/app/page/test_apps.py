"""Apps on the page: every error at once, secrets that never come back, switching and removing."""

from __future__ import annotations

from tests.app.home import APPLICATION_ID, SECRET
from tests.app.page.visitor import Served, Visitor

FORM = {
    "name": "work",
    "application_id": APPLICATION_ID,
    "account_types": "organizations",
    "flow": "delegated",
    "cloud": "global",
}
OTHER_ID = "33333333-3333-4333-8333-333333333333"


def test_an_app_is_entered_and_enabled(visitor: Visitor, served: Served) -> None:
    assert "There is none yet" in visitor.get("/apps").words
    page = visitor.submit("/apps/new", FORM)
    assert "App work is entered and enabled." in page.words
    app = served.home.config().apps["work"]
    assert (app.application_id, app.account_types, app.enabled) == (APPLICATION_ID, "organizations", True)
    assert served.beside.office.config.apps.keys() == {"work"}, "the daemon works with it"
    listed = visitor.get("/apps").words
    assert "Work or school accounts of any organisation (Microsoft 365)" in listed
    assert "a public client" in listed


def test_every_error_is_told_at_once_and_at_its_field(visitor: Visitor, served: Served) -> None:
    wrong = {
        "name": "my app!",
        "application_id": "not-an-id",
        "account_types": "directory",
        "directory": "",
        "client_secret": OTHER_ID,
        "client_secret_expires": "31.12.2027",
        "redirect_uri": "http://example.com",
    }
    page = visitor.post("/apps/new", {**FORM, **wrong})
    assert page.status == 422
    for name in wrong:
        if name != "account_types":
            assert f'id="field-{name}-error"' in page.text, name
    assert "is not an application id" in page.words
    assert "this is the Secret ID" in page.words.replace("This", "this")
    assert "6 fields need another look" in page.words
    assert OTHER_ID not in page.text, "a secret is not sent back"
    assert 'value="my app!"' in page.text
    assert not (served.home.folder / "conf.d").is_dir() or not list((served.home.folder / "conf.d").iterdir())


def test_a_name_that_is_taken(visitor: Visitor) -> None:
    visitor.submit("/apps/new", FORM)
    page = visitor.post("/apps/new", {**FORM, "name": "WORK", "application_id": OTHER_ID})
    assert page.status == 422
    assert "There is an app with this name" in page.words


def test_a_client_secret_is_kept_and_never_shown(visitor: Visitor, served: Served) -> None:
    visitor.submit("/apps/new", {**FORM, "client_secret": SECRET, "client_secret_expires": "2031-05-01"})
    for path in ("/apps", "/apps/work", "/"):
        assert SECRET not in visitor.get(path).text
    assert "Leave this empty to keep it." in visitor.get("/apps/work").words
    page = visitor.submit("/apps/work", {**FORM, "application_id": OTHER_ID, "client_secret_expires": "2032-05-01"})
    assert "App work is changed." in page.words
    app = served.home.config().apps["work"]
    assert app.application_id == OTHER_ID
    assert app.client_secret is not None
    assert app.client_secret.value == SECRET
    assert "expires on 2032-05-01" in page.words
    visitor.submit("/apps/work", {**FORM, "client_secret": SECRET[::-1]})
    assert getattr(served.home.config().apps["work"].client_secret, "value", "") == SECRET[::-1]
    visitor.submit("/apps/work", {**FORM, "no_secret": "yes"})
    assert served.home.config().apps["work"].client_secret is None


def test_a_change_that_does_not_hold_changes_nothing(visitor: Visitor, served: Served) -> None:
    visitor.submit("/apps/new", FORM)
    page = visitor.post("/apps/work", {**FORM, "application_id": "", "account_types": "directory", "directory": "a b"})
    assert page.status == 422
    assert 'id="field-application_id-error"' in page.text
    assert 'id="field-directory-error"' in page.text
    assert served.home.config().apps["work"].application_id == APPLICATION_ID


def test_an_app_is_switched_off_and_on(visitor: Visitor, served: Served) -> None:
    visitor.submit("/apps/new", FORM)
    assert "App work is disabled" in visitor.submit("/apps/work/disable").words
    assert served.beside.office.config.apps["work"].enabled is False
    assert "App work is enabled" in visitor.submit("/apps/work/enable").words
    assert served.beside.office.config.apps["work"].enabled is True


def test_an_app_that_accounts_use_is_not_removed(resident: Visitor, served_furnished: Served) -> None:
    assert "These accounts use it" in resident.get("/apps/work/remove").words
    reply = resident.post("/apps/work/remove")
    assert reply.status == 409
    assert "work" in served_furnished.home.config().apps


def test_an_app_is_removed(visitor: Visitor, served: Served) -> None:
    visitor.submit("/apps/new", FORM)
    assert "mailferry forgets it" in visitor.get("/apps/work/remove").words
    assert "App work is forgotten" in visitor.submit("/apps/work/remove").words
    assert served.home.config().apps == {}


def test_an_app_that_a_person_wrote_is_theirs(visitor: Visitor, served: Served) -> None:
    served.home.write_main(f"apps:\n  own: {{application_id: {APPLICATION_ID}, account_types: common}}\n")
    served.turning.wait(served.beside.desk.reload)
    assert "stands in a file that you wrote" in visitor.get("/apps/own").words
    page = visitor.post("/apps/own", {**FORM, "account_types": "consumers"})
    assert page.status == 422
    assert "stands in a file that you wrote" in page.words


def test_what_is_not_there(visitor: Visitor) -> None:
    for method, path in (
        ("GET", "/apps/x"),
        ("POST", "/apps/x"),
        ("POST", "/apps/x/enable"),
        ("GET", "/apps/x/remove"),
    ):
        assert (visitor.get(path) if method == "GET" else visitor.post(path)).status == 404
