"""GROUND: the configuration, from YAML to frozen values; every finding names file, line and key (PRODUCT section 3).

settings     what the rest of the program sees: `Config` and its parts
findings     `Finding`, and `ConfigurationError` that carries them
read         the files -> `Config`; its parts are judged by listeners, apps, accounts, clouds and sources
fields       reading one mapping key by key
document     YAML text <-> nodes that know their line; the only door to yaml
files        bounded reading, private modes, atomic writing
conf_d       the files that mailferry itself writes
starter      where the main file is, and the first one
"""

from __future__ import annotations

from proxy.config.conf_d import (
    add_password,
    change_account,
    change_app,
    is_ours,
    judge_app,
    remove_account,
    remove_app,
    remove_password,
    write_account,
    write_app,
)
from proxy.config.document import Value
from proxy.config.findings import ConfigurationError, Finding
from proxy.config.read import Loaded, read
from proxy.config.settings import Account, App, Config, Listener, LocalPassword, Upstream
from proxy.config.starter import create_starter, locate

__all__ = [
    "Account",
    "App",
    "Config",
    "ConfigurationError",
    "Finding",
    "Listener",
    "Loaded",
    "LocalPassword",
    "Upstream",
    "Value",
    "add_password",
    "change_account",
    "change_app",
    "create_starter",
    "is_ours",
    "judge_app",
    "locate",
    "read",
    "remove_account",
    "remove_app",
    "remove_password",
    "write_account",
    "write_app",
]
