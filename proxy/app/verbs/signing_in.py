"""The verbs `sign-in` and `sign-out`: three ways to have a person say yes to Microsoft, and the way back.

`sign-in` ends with 0 when somebody is signed in; with 1 when that failed; with 3 when nobody finished it, so that a
sign-in is still needed (PRODUCT section 2).
"""

from __future__ import annotations

import os
import webbrowser
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from proxy.accounts.endings import pasted
from proxy.app.answers import EXIT_SIGN_IN_NEEDED, DeskError
from proxy.app.counter import Counter
from proxy.app.verbs.lookup import find_account, find_config
from proxy.app.verbs.redirect import Catcher, can_catch
from proxy.app.verbs.terminal import read_line
from proxy.config import Account
from proxy.config.settings import Flow


def sign_in(options: Namespace) -> int:
    config = find_config(options)
    account = find_account(config, options.login)
    with Counter(config) as counter:
        if account.app.flow is Flow.APP_ONLY:
            counter.ask("check_app_only", login=account.name)
            print(f"App {account.app.name} signs in by itself, and Microsoft gave it a token just now.")
            return 0
        can_browse = _has_browser() and can_catch(account.app.redirect_uri)
        way = options.way or ("browser" if can_browse else "paste")
        answer = {"browser": _by_browser, "device": _by_device, "paste": _by_paste}[way](counter, account)
    print(f"Signed in as {answer['signed_in']}. {account.name} is ready for its mail program.")
    return 0


def _by_browser(counter: Counter, account: Account) -> Mapping[str, Any]:
    with Catcher(account.app.redirect_uri) as catcher:
        begun = counter.ask("begin_code", login=account.name, redirect_uri=catcher.redirect_uri)
        print(
            f"Sign in as {account.sign_in} in the browser. If none opened, go to:\n\n{begun['address']}\n", flush=True
        )
        webbrowser.open(begun["address"])
        query = catcher.wait(begun["id"])
    if query is None:
        text = "Nobody signed in within ten minutes. Start again, or use --device or --paste."
        raise DeskError(text, EXIT_SIGN_IN_NEEDED)
    return counter.ask("finish_code", id=begun["id"], query=dict(query))


def _by_paste(counter: Counter, account: Account) -> Mapping[str, Any]:
    begun = counter.ask("begin_code", login=account.name, redirect_uri=account.app.redirect_uri)
    print(
        f"1. Open this address in a browser on any machine and sign in as {account.sign_in}:\n\n{begun['address']}\n\n"
        f"2. The browser then fails to open a page at {account.app.redirect_uri}: that is expected.\n"
        "   Copy the whole address from its address bar and paste it here.\n"
        "   If Microsoft's own page shows an error, paste its text (AADSTS...) instead: it is explained.\n",
        flush=True,
    )
    return counter.ask("finish_code", id=begun["id"], query=dict(pasted(read_line("Address: "))))


def _by_device(counter: Counter, account: Account) -> Mapping[str, Any]:
    begun = counter.ask("begin_device", login=account.name)
    print(
        f"Open {begun['address']} on any device, enter the code {begun['code']}\n"
        f"and sign in as {account.sign_in}. Waiting for Microsoft ...",
        flush=True,
    )
    return counter.ask("await_device", id=begun["id"])


def sign_out(options: Namespace) -> int:
    config = find_config(options)
    account = find_account(config, options.login)
    with Counter(config) as counter:
        counter.ask("sign_out", login=account.name)
    print(f"Signed out: the tokens of {account.sign_in} are forgotten here. Microsoft keeps the consent.")
    return 0


def _has_browser() -> bool:
    """A graphical one, on this machine."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"))
