"""The verb `page`, and what `serve` says of it: a link that opens the set-up page once.

The link goes to the terminal and nowhere else: who has it may do what the daemon may. `cli.py` calls it.
"""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from argparse import Namespace

from proxy.app.answers import EXIT_NO_DAEMON, DeskError
from proxy.app.asking import NoDaemon, ask_daemon
from proxy.app.verbs.lookup import find_config

LINK_LIFE_MINUTES = 10  # page/guard.py


def page(options: Namespace) -> int:
    config = find_config(options)
    try:
        address = ask_daemon(config.state_dir, "invite", {})["address"]
    except NoDaemon:
        text = "The page is served by the daemon, and none runs here. Start it: mailferry serve"
        raise DeskError(text, EXIT_NO_DAEMON) from None
    if options.json:
        print(json.dumps({"address": address}))
    else:
        print(f"Open this link in a browser on this machine, within {LINK_LIFE_MINUTES} minutes; it works once:\n")
        print(f"    {address}\n", flush=True)
    if options.open and not webbrowser.open(address):
        raise DeskError("No browser could be opened from here; open the link yourself.")
    return 0


def greet(address: str) -> None:
    """At the end of a start that a person sees."""
    print(
        f"\nmailferry is ready. Its page opens with this link, once, within {LINK_LIFE_MINUTES} minutes:\n\n"
        f"    {address}\n\nFor another link: mailferry page\n",
        file=sys.stderr,
        flush=True,
    )


def sees_a_person(*, first_start: bool) -> bool:
    """Whether a link on standard error comes before a person's eyes, and not into a log that others read."""
    if "JOURNAL_STREAM" in os.environ:  # systemd's: standard error is the journal
        return False
    return first_start or sys.stderr.isatty()
