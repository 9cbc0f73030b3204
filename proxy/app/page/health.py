"""/health: whether mailferry serves, for a machine that asks. No cookie, and no names of people."""

from __future__ import annotations

import json
from collections import Counter

from proxy import __version__
from proxy.accounts.store import StoreError
from proxy.app.page.wire import Answer, Asked, Download, Route


async def show(asked: Asked) -> Answer:
    """200 while the daemon serves and its store answers, else 503; and how many accounts are in which state."""
    try:
        rows = (await asked.service.desk.ask("accounts", {}))["accounts"]
        await asked.service.desk.ask("look_at_store", {})
    except StoreError:  # whose text may name a record; the log has it
        return _answer(503, {"status": "failing", "reason": "the store does not answer"})
    states = Counter(row["state"] for row in rows)
    return _answer(200, {"status": "ok", "accounts": dict(sorted(states.items()))})


def _answer(status: int, document: dict[str, object]) -> Download:
    return Download(
        json.dumps({"version": __version__, **document}).encode() + b"\n", "application/json", status=status
    )


ROUTES = (Route("GET", "/health", show, open=True),)
