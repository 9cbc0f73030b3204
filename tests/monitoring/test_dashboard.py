"""The Grafana dashboard of `systemd/monitoring/`: its queries hold, and ask for what is told; nothing is left out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.names import told_names, used_names
from tests.servers.child import program

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "systemd" / "monitoring" / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
WIDTH = 24  # of Grafana's grid


def queries() -> Iterator[str]:
    """All of them, with Grafana's variables filled in."""
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for query in asked:
        yield query.replace("$__rate_interval", "5m").replace("$instance", ".*")


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_what_is_told(query: str) -> None:
    assert used_names(query)
    assert used_names(query) <= told_names()


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    records = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    rules = tmp_path / "queries.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    command = [program("promtool"), "check", "rules", "--lint=none", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_of_ours_is_shown() -> None:
    shown = {name for query in queries() for name in used_names(query)}
    families = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in told_names()}
    ours = {name for name in families if name.startswith("mailferry_")}
    assert {name for name in ours if not any(each.startswith(name) for each in shown)} == set()


def test_the_panels_lie_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert max(x for x, _ in cells) < WIDTH
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_each_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in PANELS if not (panel["title"] and panel["description"])] == []
    sources = [target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]]
    assert set(sources) == {"${datasource}"}
