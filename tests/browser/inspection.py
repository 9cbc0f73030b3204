"""What every page must stand: axe-core, a phone's width, the keyboard alone, a silent console, no foreign host.

Not a test. Each function gives what is wrong, in words; an empty list is good.
"""

from __future__ import annotations

import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.browser.webdriver import PHONE, Browser, Scheme
from tests.servers.child import program

HERE = Path(__file__).parent
SCREENSHOTS = HERE / "screenshots"
NPM_DEADLINE_S = 300.0
MAX_STOPS = 400  # of the Tab key on one page
TAB = "\ue004"  # WebDriver §17.4.2
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_NAMED = """
const named = each =>
  `${each.localName} ${(each.getAttribute('aria-label') || each.name || each.textContent).trim().slice(0, 40)}`;
"""
_CONTROLS = f"""{_NAMED}
return [...document.querySelectorAll(
    'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')]
  .filter(each => !each.disabled && each.checkVisibility({{visibilityProperty: true}}))
  .filter(each => {{
    if (each.type !== 'radio') return true;              // of a group the Tab key stops at one
    const group = [...document.querySelectorAll('input[type=radio]')]
      .filter(other => other.name === each.name && other.form === each.form);
    return each === (group.find(other => other.checked) || group[0]);
  }})
  .map((each, number) => {{
    each.dataset.number = number;
    return named(each);
  }});
"""
_FOCUS = f"""{_NAMED}
const each = document.activeElement;
if (!each || each === document.body || each === document.documentElement) return null;
const style = getComputedStyle(each);
const box = each.getBoundingClientRect();
return {{
  number: each.dataset.number === undefined ? null : Number(each.dataset.number),
  name: named(each),
  ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  inside: box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
}};
"""
_BROAD = """
const width = document.documentElement.clientWidth;
const holds = each => getComputedStyle(each).overflowX !== 'visible';
const held = each => each.parentElement !== document.body && (holds(each.parentElement) || held(each.parentElement));
if (document.documentElement.scrollWidth <= width) return [];
return [document.documentElement, ...document.querySelectorAll('body *')]
  .filter(each => each === document.documentElement || each.getBoundingClientRect().right > width + 0.5 && !held(each))
  .map(each => `${each.localName}.${each.className} reaches ${Math.round(each.getBoundingClientRect().right)} px`);
"""


@cache
def axe() -> str:
    """axe-core's own script."""
    script = HERE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        install = [program("npm"), "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=HERE, check=True, capture_output=True, timeout=NPM_DEADLINE_S)
    return script.read_text()


def violations(browser: Browser, scheme: Scheme) -> list[str]:
    """What axe-core finds in this colour scheme: WCAG 2.2 AA and good practice."""
    with browser.seen(scheme):
        found = browser.run(
            f"{axe()};\nreturn axe.run(document, {{runOnly: arguments[0], resultTypes: ['violations']}});", _RULES
        )
    return [
        f"{scheme}: {each['id']}: {each['help']}: {node['html'][:200]} {_measured(node)}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def _measured(node: dict[str, Any]) -> str:
    return "; ".join(str(check["message"]) for check in node["any"])[:200]


def too_broad(browser: Browser) -> list[str]:
    """What makes the page scroll sideways on a phone."""
    with browser.seen(size=PHONE):
        return [str(each) for each in browser.run(_BROAD)]


def unreachable(browser: Browser) -> list[str]:
    """Goes through the page by the Tab key alone: every control in the page's order, with a ring around it."""
    controls: list[str] = browser.run(_CONTROLS)
    browser.run("scrollTo(0, 0); document.activeElement && document.activeElement.blur();")
    wrong: list[str] = []
    reached: list[int] = []
    for _ in range(MAX_STOPS):
        browser.press(TAB)
        focus = browser.run(_FOCUS)
        if focus is None or (reached and focus["number"] == reached[0]):
            break  # out of the page, or round
        if not focus["ring"]:
            wrong.append(f"no ring around {focus['name']}")
        if not focus["inside"]:
            wrong.append(f"focus out of sight: {focus['name']}")
        if focus["number"] is not None:
            reached.append(focus["number"])
    wrong += [f"out of order: {controls[b]}" for a, b in pairwise(reached) if b < a]
    wrong += [f"not reached: {control}" for number, control in enumerate(controls) if number not in reached]
    return wrong


def inspect(browser: Browser, name: str, own: str) -> list[str]:
    """All of it, with pictures in light, dark and at a phone's width; `own` is the only address it may ask."""
    browser.hold()  # a refresh would take the keyboard's place away
    wrong = [f"console: {each}" for each in browser.complaints()]
    wrong += [f"asked {host}" for host in sorted(browser.hosts() - {own})]
    take_pictures(browser, name)
    wrong += violations(browser, "light") + violations(browser, "dark") + too_broad(browser) + unreachable(browser)
    return [f"{name}: {each}" for each in wrong]


def take_pictures(browser: Browser, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    for look, scheme, size in (("light", "light", None), ("dark", "dark", None), ("phone", "light", PHONE)):
        with browser.seen(scheme, size) if size else browser.seen(scheme):  # type: ignore[arg-type]
            browser.picture(SCREENSHOTS / f"{name}-{look}.png")
