"""GROUND: where the main file is looked for, and the one that is made when there is none (PRODUCT section 3)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from proxy.config.files import make_folder, reason, write_atomically
from proxy.config.findings import refusal

SYSTEM_FILE = Path("/etc/mailferry/config.yaml")
_FOLDER_MODE = 0o700

STARTER = """\
# mailferry's configuration, made on its first start. It is yours now: mailferry never rewrites this file.
# Apps and accounts made by commands go into conf.d/ beside it.
# After a change: `mailferry check`, then restart the daemon or send it SIGHUP. Every key is in config.example.yaml.

page: 127.0.0.1:8143        # the set-up page; `mailferry page` prints a link that opens it; `off` for none

listeners:                  # where mail programs connect, on this machine only; TLS is offered on each
  - {protocol: imap, address: localhost, port: 1143, tls: auto}
  - {protocol: pop3, address: localhost, port: 1110, tls: auto}
  - {protocol: smtp, address: localhost, port: 1587, tls: auto}

# Next: `mailferry page`, which shows every step; or `mailferry app add work`, `mailferry account add you@example.com`.
# By hand it reads:
#
# apps:
#   work:
#     application_id: 11111111-1111-4111-8111-111111111111    # Application (client) ID
#     account_types: organizations                            # consumers, organizations, common, or a directory id
#
# accounts:
#   - login: you@example.com
#     app: work
#     password: "$scrypt$..."                                 # what `mailferry password --hash` prints
"""


def locate(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The main file: the one given, `$MAILFERRY_CONFIG`, else the first that is there; None when none is.

    A file that was named is the answer even when it is missing: reading it then says so.
    """
    if given is not None:
        return given
    if named := environ.get("MAILFERRY_CONFIG"):
        return Path(named)
    return next((file for file in _usual_files(environ) if os.path.exists(file)), None)


def create_starter(environ: Mapping[str, str]) -> Path:
    """Write the commented starter to the first usual place that can be written, mode 0600, and tell where.

    Raises:
        ConfigurationError: no place can be written; every one with its reason.
    """
    refusals: list[str] = []
    files = _usual_files(environ)
    for file in files:
        try:
            file.parent.parent.mkdir(parents=True, exist_ok=True)
            make_folder(file.parent, _FOLDER_MODE)
            if os.path.lexists(file):
                raise FileExistsError(0, "it is there already")
            write_atomically(file.parent, file.name, STARTER)
        except OSError as error:
            refusals.append(f"{file}: {reason(error)}")
        else:
            return file
    raise refusal(files[0], f"no configuration could be made ({'; '.join(refusals)})", "name one with --config FILE")


def _usual_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = environ.get("HOME")
    own = (Path(home, ".config/mailferry/config.yaml"),) if home else ()
    return (*own, SYSTEM_FILE)
