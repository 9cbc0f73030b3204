"""The long texts: files for programs as Jinja2 templates, `templates/NAME.j2`. XML escapes by itself; the rest quotes.

A template quotes each value by the filter of its format, which is a function of `quoting.py`.
"""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from proxy.app.programs import quoting

_FILTERS = ("home_path", "url", "mutt", "mbsync", "fetchmail", "netrc", "msmtp", "prf", "powershell", "comment")


def fill(template: str, **values: Any) -> str:
    """The text. Raises: quoting.Unquotable: the format cannot hold one of the values."""
    return _environment().get_template(f"{template}.j2").render(values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("proxy.app.programs"),
        # a muttrc is no HTML: there each value goes through the filter of its format
        autoescape=lambda name: name is not None and name.endswith(".xml.j2"),  # noqa: S701 - XML alone
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in _FILTERS:
        environment.filters[name] = getattr(quoting, name)
    return environment
