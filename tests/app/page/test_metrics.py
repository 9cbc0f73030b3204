"""/metrics: for a machine, without a cookie and without names; what is looked at when it asks."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from proxy.accounts.states import State, TokenCondition
from proxy.accounts.store import StoreTrouble
from proxy.app.page.metrics import look
from proxy.config import App
from tests.app.home import ALICE, DESK
from tests.app.page.visitor import Served, Visitor

SECRET_ENDS = datetime.date(2031, 5, 17)
SECRET_ENDS_S = 1_936_742_400.0


def use_apps(served: Served, **changes: object) -> None:
    """The same configuration with every app changed."""
    config = served.beside.office.config

    def changed(app: App) -> App:
        return replace(app, **changes)  # type: ignore[arg-type]

    accounts = tuple(replace(account, app=changed(account.app)) for account in config.accounts)
    apps = {name: changed(app) for name, app in config.apps.items()}
    served.turning.call(lambda: served.beside.office.use(replace(config, accounts=accounts, apps=apps)))


def test_metrics_need_no_cookie_and_name_nobody(served_furnished: Served) -> None:
    reply = Visitor(served_furnished.port).ask("GET", "/metrics")
    assert reply.status == 200
    assert reply.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.header("cache-control") == "no-store"
    assert 'mailferry_accounts{state="sign_in_needed"} 1.0' in reply.text
    assert 'mailferry_accounts{state="connecting"} 1.0' in reply.text
    assert 'mailferry_accounts{state="disabled"} 0.0' in reply.text
    assert "mailferry_store_takes_writes 1.0" in reply.text
    for name in (ALICE, DESK, ALICE.partition("@")[0], "contoso"):
        assert name not in reply.text


def test_nothing_is_changed_by_metrics(served_furnished: Served) -> None:
    assert Visitor(served_furnished.port).ask("POST", "/metrics").status in (403, 405)


def test_what_ends_first(served_furnished: Served) -> None:
    office = served_furnished.beside.office
    alice, desk = (account.identity for account in office.config.accounts)
    now_s = office.states.now_s()
    use_apps(served_furnished, client_secret_expires=SECRET_ENDS)
    office.states.token_changed(alice, TokenCondition(None, expires_at_s=now_s + 900, refreshed_at_s=now_s - 86_400))
    office.states.token_changed(desk, TokenCondition(None, expires_at_s=now_s + 600))
    seen = look(office)
    assert seen.token_ends_s == now_s + 600
    assert seen.refresh_token_ends_s == now_s + 89 * 86_400
    assert seen.client_secret_ends_s == SECRET_ENDS_S
    office.states.token_changed(desk, TokenCondition(None, expires_at_s=now_s - 1))
    assert look(office).token_ends_s == now_s + 900, "one that has ended is renewed at the next login"


def test_what_is_switched_off_does_not_end(served_furnished: Served) -> None:
    office = served_furnished.beside.office
    use_apps(served_furnished, client_secret_expires=SECRET_ENDS, enabled=False)
    seen = look(office)
    assert seen.accounts == {**dict.fromkeys((state.value for state in State), 0), "disabled": 2}
    assert (seen.token_ends_s, seen.refresh_token_ends_s, seen.client_secret_ends_s) == (None, None, None)


def test_a_store_that_takes_no_write(served_furnished: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_furnished.beside.office.store, "trouble", StoreTrouble("The disk is full.", 1.0))
    assert "mailferry_store_takes_writes 0.0" in Visitor(served_furnished.port).ask("GET", "/metrics").text


def test_a_page_that_fails_is_counted(served_furnished: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Visitor(served_furnished.port)
    metrics = served_furnished.beside.office.metrics

    async def fail(verb: str, arguments: object) -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr(served_furnished.beside.desk, "ask", fail)
        assert visitor.ask("GET", "/health").status == 500
    assert metrics.registry.get_sample_value("mailferry_page_failures_total") == 1
