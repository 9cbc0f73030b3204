"""From nothing to `connected`: the steps of the set-up, in their order, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy.app.page.wire import Answer, Asked, Page, Route, path_to
from proxy.config import Config

_SIGNED_OUT = ("sign_in_needed", "signing_in", "disabled")


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    title: str
    text: str
    to: str
    action: str
    done: bool


async def show(asked: Asked) -> Answer:
    config = asked.service.config()
    rows = (await asked.service.desk.ask("accounts", {}))["accounts"]
    steps = set_up(config, rows)
    now = next((step.name for step in steps if not step.done), "")
    return Page("journey.html", steps=steps, now=now, accounts=rows)


async def show_register(asked: Asked) -> Answer:  # noqa: ARG001
    return Page("register.html")


def set_up(config: Config, rows: list[dict[str, Any]]) -> list[Step]:
    """The steps. A later one that is done does not make an earlier one so."""
    first = rows[0]["login"] if rows else None
    unsigned = next((row["login"] for row in rows if row["state"] in _SIGNED_OUT), first)
    signed = any(row["state"] not in _SIGNED_OUT for row in rows)
    connected = next((row["login"] for row in rows if row["state"] == "connected"), None)
    at_work = connected or next((row["login"] for row in rows if row["state"] not in _SIGNED_OUT), first)

    def of(login: str | None, pattern: str) -> str:
        return path_to(pattern, login=login) if login else "/accounts"

    return [
        Step(
            "register",
            "Register an app at Microsoft",
            "Microsoft must know who asks for your mail. This makes an Application ID, once, for all your mailboxes.",
            "/register",
            "Show me how",
            bool(config.apps),
        ),
        Step(
            "enter",
            "Enter and enable it here",
            "The Application ID, and whose accounts it is for.",
            "/apps" if config.apps else "/apps/new",
            "The apps" if config.apps else "Enter the app",
            any(app.enabled for app in config.apps.values()),
        ),
        Step(
            "account",
            "Add an account",
            "A mailbox, and the local password that its mail program will use.",
            "/accounts/new",
            "Add an account",
            bool(rows),
        ),
        Step(
            "sign_in",
            "Sign in with Microsoft",
            "The mailbox's owner says yes on Microsoft's own page.",
            of(unsigned, "/accounts/{login}/sign-in"),
            "Sign in",
            signed,
        ),
        Step(
            "connected",
            "See it connected",
            "mailferry logs in to the mailbox once, without reading anything, and says what is in the way.",
            of(at_work, "/doctor/{login}"),
            "Try it",
            connected is not None,
        ),
        Step(
            "program",
            "Set up your mail program",
            "Server, ports and password, or a file that your program takes.",
            of(connected or at_work, "/accounts/{login}/program"),
            "Settings for my program",
            connected is not None,
        ),
    ]


ROUTES = (
    Route("GET", "/", show, here="setup"),
    Route("GET", "/register", show_register, here="setup"),
)
