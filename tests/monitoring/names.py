"""The names of metrics: those that mailferry tells, and those that a query uses. Not a test."""

from __future__ import annotations

import re

from proxy.accounts.states import State
from proxy.metrics import Metrics, Now

BY_PROMETHEUS = {"up", "ALERTS"}
_NAME = r"\b(?:mailferry|process|python)_\w+|\bup\b|\bALERTS\b"


def told_names(*, with_labels: bool = False) -> set[str]:
    """Of every metric that Prometheus finds here, with all that can be told."""
    accounts = {state.value: 0 for state in State}
    lines = Metrics().exposition(Now(accounts, 1.0, 1.0, 1.0)).decode().splitlines()
    samples = {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
    return samples if with_labels else {sample.partition("{")[0] for sample in samples} | BY_PROMETHEUS


def used_names(query: str) -> set[str]:
    """Those in a query, without its texts and label lists."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\b(by|on|group_left|group_right)\s*\([^)]*\)", "", bare)
    return set(re.findall(_NAME, bare))
