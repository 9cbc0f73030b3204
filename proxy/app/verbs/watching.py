"""The verb `log`: have a running daemon say everything about one account or address, for a time with a bound.

What each side says before its login then stands in the daemon's own log, without any secret; nothing of it comes here.
`cli.py` calls it.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace

from proxy.app.answers import EXIT_NO_DAEMON, Answer, DeskError
from proxy.app.asking import NoDaemon, ask_daemon
from proxy.app.verbs.lookup import find_config
from proxy.app.verbs.terminal import UsageError
from proxy.network.watches import MAX_WATCH_S

_UNITS_S = {"": 60, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,5})([smh]?)")


def log(options: Namespace) -> int:
    if options.stop and options.whom is None:
        raise UsageError("Whose? Give a login or an address with --stop.")
    state_dir = find_config(options).state_dir
    try:
        if options.whom is None:
            answer = ask_daemon(state_dir, "watches", {})
        elif options.stop:
            answer = ask_daemon(state_dir, "unwatch", {"whom": options.whom})
        else:
            answer = ask_daemon(state_dir, "watch", {"whom": options.whom, "for_s": duration_s(options.for_time)})
    except NoDaemon:
        text = "It is the daemon that writes the log, and none runs here. Start it: mailferry serve"
        raise DeskError(text, EXIT_NO_DAEMON) from None
    print(json.dumps(answer) if options.json else _told(answer))
    return 0


def _told(answer: Answer) -> str:
    if not answer["watched"]:
        return "Nobody is watched: the log says what its level says."
    lines = [f"{each['whom']}: everything is logged for {_span(each['left_s'])}" for each in answer["watched"]]
    return "\n".join([*lines, "It stands in the daemon's log: journalctl -u mailferry, or wherever you send it."])


def _span(left_s: float) -> str:
    return f"{left_s / 60:.0f} more minutes" if left_s >= 90 else f"{left_s:.0f} more seconds"


def duration_s(text: str) -> float:
    """`90s`, `10m`, `1h`; a number alone is minutes. Raises: UsageError: it is none, or too long."""
    found = _DURATION.fullmatch(text.strip().lower())
    spelt = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < spelt <= MAX_WATCH_S:
        raise UsageError(f"{text!r} is not a time like 90s, 10m or 1h; an hour is the longest")
    return float(spelt)
