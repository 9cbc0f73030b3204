"""/metrics: what was counted, for Prometheus. No cookie, and no names of people. The counting is in `proxy.metrics`."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy.accounts.states import State
from proxy.app.page.wire import Answer, Asked, Download, Route
from proxy.metrics import MEDIA_TYPE, Now

if TYPE_CHECKING:
    from proxy.app.office import Office


async def show(asked: Asked) -> Answer:
    service = asked.service
    return Download(service.metrics.exposition(service.now()), MEDIA_TYPE)


def look(office: Office) -> Now:
    """How the accounts and the store are now; what is switched off ends without anybody's harm, and is left out."""
    states, accounts = office.states, office.config.accounts
    numbers = Counter(states.state(account) for account in accounts)
    used = [account for account in accounts if account.app.enabled]
    secrets = {account.app.client_secret_expires for account in used}
    now_s = states.now_s()
    return Now(
        accounts={state.value: numbers[state] for state in State},
        # One that has ended is renewed when somebody logs in
        token_ends_s=_first(end_s for end_s in map(states.token_end_s, used) if end_s and end_s > now_s),
        refresh_token_ends_s=_first(map(states.idle_end_s, used)),
        client_secret_ends_s=_first(map(_midnight_s, secrets)),
        store_takes_writes=office.store.trouble is None,
    )


def _first(ends_s: Iterable[float | None]) -> float | None:
    return min((end_s for end_s in ends_s if end_s is not None), default=None)


def _midnight_s(day: datetime.date | None) -> float | None:
    """When it begins, in seconds since 1970."""
    return None if day is None else datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()


ROUTES = (Route("GET", "/metrics", show, open=True),)
