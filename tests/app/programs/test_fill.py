"""Templates: XML escapes by itself, a value that is missing is a mistake, and every template is packed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from proxy.app.programs.fill import fill

ROOT = Path(__file__).parents[3]


def test_xml_is_escaped() -> None:
    text = fill("autoconfig.xml", domain="<&>", doors=[], login="x")
    assert "<domain>&lt;&amp;&gt;</domain>" in text


def test_a_missing_value_is_a_mistake() -> None:
    with pytest.raises(UndefinedError):
        fill("msmtprc", login="x")


def test_the_templates_are_packed() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    templates = list((ROOT / "proxy/app/programs/templates").iterdir())
    assert templates
    assert all(file.suffix == ".j2" for file in templates)
    assert "templates/*" in packed
