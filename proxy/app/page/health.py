"""/health: whether mailferry can serve, for a machine that asks. No cookie, and no names of people."""

from __future__ import annotations

import json
from collections import Counter

from proxy import __version__
from proxy.app.page.wire import Answer, Asked, Download, Route


async def show(asked: Asked) -> Answer:
    """200 while listeners accept and the store answers, else 503 with the reasons; and how many accounts are how."""
    desk = asked.service.desk
    reasons = (await desk.ask("health", {}))["reasons"]
    if reasons:
        return _answer(503, {"status": "failing", "reasons": reasons})
    states = Counter(row["state"] for row in (await desk.ask("accounts", {}))["accounts"])
    return _answer(200, {"status": "ok", "accounts": dict(sorted(states.items()))})


def _answer(status: int, document: dict[str, object]) -> Download:
    return Download(
        json.dumps({"version": __version__, **document}).encode() + b"\n", "application/json", status=status
    )


ROUTES = (Route("GET", "/health", show, open=True),)
