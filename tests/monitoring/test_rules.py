"""The alert rules of `systemd/monitoring/`, judged by the real promtool; when each fires stands in `rules.test.yml`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.names import told_names, used_names
from tests.servers.child import program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "systemd" / "monitoring" / "mailferry.rules.yml"
TESTS = Path(__file__).parent / "rules.test.yml"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]


def promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    code, said = promtool("check", "rules", str(RULES))
    assert (code, f"{len(ALERTS)} rules found" in said) == (0, True), said


def test_the_configuration_for_prometheus_is_one() -> None:
    code, said = promtool("check", "config", "--syntax-only", str(RULES.with_name("prometheus.yml")))
    assert code == 0, said


def test_each_alert_fires_when_it_should() -> None:
    code, said = promtool("test", "rules", str(TESTS))
    assert code == 0, said


def test_an_alert_that_never_fires_is_found(tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(RULES.read_text().replace('state="sign_in_needed"} > 0', 'state="other"} > 0'))
    (tmp_path / TESTS.name).write_text(TESTS.read_text().replace("../../systemd/monitoring/", ""))
    code, said = promtool("test", "rules", str(tmp_path / TESTS.name))
    assert (code, "alertname: MailferrySignInNeeded" in said) == (1, True), said


def test_all_alerts_are_tested() -> None:
    expected = set(re.findall(r'alertname="(Mailferry\w+)"\}\', value: 1', TESTS.read_text()))
    assert expected == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_for_what_is_told_and_says_what_to_do(alert: dict[str, Any]) -> None:
    names = used_names(alert["expr"])
    assert names
    assert names <= told_names()
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description"} == set(alert["annotations"])


def test_every_state_and_outcome_that_a_rule_names_is_told() -> None:
    told = told_names(with_labels=True)
    for alert in ALERTS:
        for name, label, values in re.findall(r'(mailferry_\w+)\{(\w+)=~?"([^"]+)"\}', alert["expr"]):
            for value in values.split("|"):
                assert any(line.startswith(f"{name}{{") and f'{label}="{value}"' in line for line in told), value
