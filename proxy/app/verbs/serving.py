"""The verbs `serve` and `demo`: the daemon, for real and on the practice harbour. No other verb loads either."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from proxy import config as configuration
from proxy.app.verbs import opening
from proxy.app.verbs.lookup import find_loaded


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


def demo(options: Namespace) -> int:
    from proxy.demo.journey import run

    return run(once=options.once)
