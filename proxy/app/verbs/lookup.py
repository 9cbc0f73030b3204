"""What a command's options point at: the configuration, an account of it, its only app."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from proxy import config as configuration
from proxy.app.answers import no_account
from proxy.app.registry import Registry
from proxy.app.verbs.terminal import UsageError
from proxy.config import Account, Config


def find_loaded(options: Namespace) -> configuration.Loaded:
    return configuration.read(configuration.locate(options.config, os.environ), os.environ)


def find_config(options: Namespace) -> Config:
    return find_loaded(options).config


def find_main_file(options: Namespace) -> Path:
    """The main file, made if there is none yet: conf.d lies beside it."""
    return configuration.locate(options.config, os.environ) or configuration.create_starter(os.environ)


def find_registry(options: Namespace) -> Registry:
    return Registry(find_main_file(options), os.environ)


def find_account(config: Config, login: str) -> Account:
    """Raises: UsageError: there is none with this login."""
    account = config.account(login)
    if account is None:
        raise UsageError(no_account(login))
    return account


def find_only_app(config: Config) -> str:
    """Raises: UsageError: there is none, or which one is not clear."""
    match list(config.apps):
        case [only]:
            return only
        case []:
            raise UsageError("There is no app yet. First: mailferry app add NAME")
        case several:
            raise UsageError(f"Which app? Give --app with one of: {', '.join(several)}")
