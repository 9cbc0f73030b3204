"""The verbs `serve`, `reload` and `demo`: the daemon, for real and on the practice harbour. No other loads either."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import cast

from proxy import config as configuration
from proxy.app.answers import EXIT_NO_DAEMON, DeskError
from proxy.app.asking import NoDaemon, ask_daemon
from proxy.app.verbs import opening
from proxy.app.verbs.lookup import find_config, find_loaded


def serve(options: Namespace) -> int:
    from proxy.app import daemon

    first_start = configuration.locate(options.config, os.environ) is None
    if first_start:
        made = configuration.create_starter(os.environ)
        print(f"mailferry: no configuration found; a first one was made: {made}", file=sys.stderr)
    loaded = find_loaded(options)
    for finding in loaded.findings:
        print(finding, file=sys.stderr)
    greet = opening.greet if opening.sees_a_person(first_start=first_start) else None
    return daemon.serve(loaded.config, os.environ, greet=greet)


def reload(options: Namespace) -> int:
    """Like SIGHUP, but what does not hold is said here. Raises: DeskError: it does not; nothing was changed."""
    for warning in _reloaded(find_config(options).state_dir):
        print(warning, file=sys.stderr)
    print("The daemon works with the configuration as it is now. Sessions that run have not noticed.")
    return 0


def _reloaded(state_dir: Path) -> list[str]:
    """The daemon's warnings. It may still be at home where systemd put it: a new `state_dir` waits for a restart."""
    for each in dict.fromkeys((state_dir, Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or state_dir))):
        with suppress(NoDaemon):
            return cast("list[str]", ask_daemon(each, "reload", {})["warnings"])
    text = "No daemon runs here, so there is none to read the configuration again. Start it: mailferry serve"
    raise DeskError(text, EXIT_NO_DAEMON)


def demo(options: Namespace) -> int:
    from proxy.demo.journey import run

    return run(once=options.once)
