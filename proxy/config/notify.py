"""GROUND: `notify`: who is told when an account needs somebody. Called by `read.py`; `app/hooks.py` tells."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from proxy.config.document import ScalarNode
from proxy.config.fields import Section
from proxy.config.settings import LOOPBACK_NAMES, Notify, Secret
from proxy.config.sources import secret


def read_notify(section: Section) -> Notify:
    """The values of the key `notify`. Where something is wrong, a finding is told and it counts as not written."""
    node = section.node("notify")
    if node is None:
        return Notify()
    with Section(node, section.reading) as notify:
        return Notify(command=_command(notify), webhook=_webhook(notify))


def _command(section: Section) -> tuple[str, ...]:
    words = tuple(section.text_of(node) for node in section.items("command"))
    place = section.at("command")
    if section.has("command") and not words:
        section.error(place, "is an empty list", "write the program and its arguments, or remove the key")
    elif words and not all(words):
        return ()  # told
    elif words and not os.path.isabs(words[0]):
        section.error(
            place, "does not begin with a whole path", f"write where the program is, as in [/usr/bin/{words[0]}]"
        )
        return ()
    elif words and not os.access(words[0], os.X_OK):
        section.warning(place, f"{words[0]} is no program that mailferry can run", "write the path of one")
    return words


def _webhook(section: Section) -> Secret | None:
    address = secret(section, "webhook")
    if address is None:
        return None
    try:
        parts = urlsplit(address.value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK_NAMES)):
        return address
    node = section.node("webhook")
    shown = "" if isinstance(node, ScalarNode) else ", where it comes from"
    section.error(
        section.at("webhook"), f"is not an https address{shown}", "write https://HOST/PATH; http only to localhost"
    )
    return None
