"""The report to hand on: version, machine, configuration, findings, last errors, without names and secrets.

It is one text, so that whoever hands it on can read it first. The configuration is not copied but told anew from what
was understood of it, so that nothing stands there that is not known to be harmless. `probing.py` calls it.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
import ssl
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy import __version__
from proxy.accounts.keys import KeyUnusable
from proxy.accounts.store import StoreError
from proxy.app.answers import DeskError
from proxy.app.doctor.findings import Finding, summary, told
from proxy.app.doctor.redaction import LEFT_OUT, Redactor
from proxy.app.doctor.scene import MAX_ACCOUNTS, Scene
from proxy.app.verbs.terminal import UsageError
from proxy.config import Account, App
from proxy.config.files import reason, write_atomically

LIBRARIES = ("twisted", "msal", "requests", "cryptography", "PyYAML", "sqlitedict", "Jinja2")
_WHO = re.compile(r"\b((?:login|user|peer)(?:=|\": )\"?)([^\s\",]*)")
_VARIABLES = ("https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle", "ssl_cert_file")
_ROW_KEYS = (
    *("login", "state", "since", "last_success", "last_error", "last_error_at", "fault", "remedy", "warning"),
    *("error_code", "token_expires_at", "refresh_token_idle_expires_at", "client_secret_expires", "sessions"),
)


def write(file: Path, scene: Scene, findings: Sequence[Finding]) -> Path:
    """Write the report to this file, mode 0600; an old one there is replaced.

    Raises:
        UsageError: it cannot be written.
    """
    target = Path(file).absolute()
    try:
        write_atomically(target.parent.resolve(), target.name, report(scene, findings))
    except OSError as error:
        raise UsageError(f"The report cannot be written to {target}: {reason(error)}.") from None
    return target


def report(scene: Scene, findings: Sequence[Finding]) -> str:
    """The report's text."""
    redactor = Redactor(scene.config, scene.environ)
    parts = [
        ("mailferry's report", _opening()),
        ("This machine", "\n".join(_machine(scene, redactor))),
        ("Configuration", json.dumps(_configuration(scene, redactor), indent=2)),
        ("What reading it found", "\n".join(_reading(scene, redactor)) or "nothing"),
        ("Findings", "\n".join(told(_redacted(finding, redactor)) for finding in findings)),
        ("In short", redactor.quoting(summary(findings))),
        ("Accounts, and their last errors", json.dumps(list(_rows(scene, redactor)), indent=2)),
        ("The daemon's last warnings", "\n".join(_warnings(scene, redactor)) or "none"),
    ]
    return "\n".join(f"## {title}\n\n{text}\n" for title, text in parts)


def _opening() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return (
        f"mailferry {__version__}, {now:%Y-%m-%d %H:%M} UTC.\n"
        "Names of people, organisations and ids are replaced, the same ones alike; secrets are left out.\n"
        "Read it before you hand it on. The whole log is not in it: journalctl -u mailferry shows that."
    )


def _machine(scene: Scene, redactor: Redactor) -> Iterator[str]:
    yield f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    yield f"{ssl.OPENSSL_VERSION}; {sys.byteorder} endian; {_distribution()}"
    yield ", ".join(f"{name} {_version_of(name)}" for name in LIBRARIES)
    for name, value in sorted(scene.environ.items()):
        if name.casefold() in _VARIABLES and value:
            yield redactor.text(f"{name}={value}")
    about = {key: value for key, value in (scene.about or {}).items() if key in ("pid", "version", "descriptors")}
    yield f"daemon: {json.dumps(about) if about else 'not running'}"


def _configuration(scene: Scene, redactor: Redactor) -> dict[str, Any]:
    config, text = scene.config, redactor.text
    return {
        "file": text(str(scene.file)),
        "holds": not scene.broken,
        "state_dir": text(str(config.state_dir)),
        "hostname": text(config.hostname),
        "page": list(config.page) if config.page else "off",
        "listeners": [
            {
                "protocol": each.protocol,
                "address": each.address,
                "port": each.port,
                "tls": each.tls.value,
                "certificate": "own" if each.certificate else "local",
                "legacy_tls": each.legacy_tls,
                "require_tls": each.require_tls,
                "allow_from": [str(network) for network in each.allow_from],
                "auth_failures": each.auth_failures.value,
                "proxy_protocol": len(each.proxy_protocol),
                "implicit_account": bool(each.implicit_account),
            }
            for each in config.listeners
        ],
        "apps": {f"app-{number}": _app(app, redactor) for number, app in enumerate(config.apps.values(), 1)},
        "accounts": [_account(account, scene, redactor) for account in config.accounts[:MAX_ACCOUNTS]],
        "accounts_in_all": len(config.accounts),
        "upstreams": sorted(
            {
                f"{protocol} ({cloud.value}): {text(server.host)}:{server.port} {server.tls.value}"
                + (", own trust" if server.ca_file else "")
                for (cloud, protocol), server in config.upstreams.items()
                if cloud in {app.cloud for app in config.apps.values()} or not config.apps
            }
        ),
        "key": "made by mailferry" if config.key.created else "given",
        "log": {"level": config.log.level, "format": config.log.format},
    }


def _app(app: App, redactor: Redactor) -> dict[str, Any]:
    redirect = urlsplit(app.redirect_uri)
    return {
        "name": redactor.text(app.name),
        "application_id": redactor.text(app.application_id),
        "account_types": redactor.text(app.account_types),
        "authority": redactor.text(app.authority),
        "client_secret": LEFT_OUT if app.client_secret else None,
        "client_secret_expires": str(app.client_secret_expires) if app.client_secret_expires else None,
        "certificate": bool(app.certificate),
        "flow": app.flow.value,
        "cloud": app.cloud.value,
        "redirect_uri": redactor.text(f"{redirect.scheme}://{redirect.netloc}"),
        "enabled": app.enabled,
        "own_trust": bool(app.ca_file),
    }


def _account(account: Account, scene: Scene, redactor: Redactor) -> dict[str, Any]:
    names = list(scene.config.apps)
    return {
        "logins": [redactor.text(login) for login in account.logins],
        "app": f"app-{names.index(account.app.name) + 1}" if account.app.name in names else "?",
        "mailbox": redactor.text(account.mailbox),
        "sign_in": redactor.text(account.sign_in),
        "passwords": [
            {"hash": LEFT_OUT, "protocols": list(each.protocols), "from": len(each.networks)}
            for each in account.passwords
        ],
        "protocols": list(account.protocols),
        "imap_connections": account.imap_connections,
        "smtp_connections": account.smtp_connections,
        "messages_per_minute": account.messages_per_minute,
    }


def _reading(scene: Scene, redactor: Redactor) -> Iterator[str]:
    """What was written there may be anything, so no value is quoted."""
    for fault in scene.faults:
        yield redactor.quoting(f"{fault.severity}: {fault.file.name}:{fault.line}: {fault.key}: {fault.problem}")


def _redacted(finding: Finding, redactor: Redactor) -> Finding:
    clean = redactor.quoting
    return replace(
        finding,
        title=clean(finding.title),
        cause=clean(finding.cause),
        remedy=clean(finding.remedy),
        details=tuple(map(clean, finding.details)),
    )


def _rows(scene: Scene, redactor: Redactor) -> Iterator[dict[str, Any]]:
    """What the desk tells of each account, its last error too."""
    wanted = {account.name for account in scene.accounts}
    if not wanted or (scene.broken and not scene.running):
        return
    for row in _asked(scene, "accounts").get("accounts", ()):
        if row["login"] in wanted:
            yield {key: redactor.plain(row.get(key)) for key in _ROW_KEYS}


def _warnings(scene: Scene, redactor: Redactor) -> Iterator[str]:
    """Who tried to log in, and from where, is nobody's business."""
    if scene.running:
        for line in _asked(scene, "warnings").get("lines", ()):
            yield redactor.text(_WHO.sub(lambda found: f"{found[1]}{redactor.login(found[2])}", line))


def _asked(scene: Scene, verb: str) -> dict[str, Any]:
    try:
        return scene.ask(verb)
    except (DeskError, StoreError, KeyUnusable):
        return {}


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "?"


def _distribution() -> str:
    try:
        return str(platform.freedesktop_os_release().get("PRETTY_NAME", "unknown system"))
    except OSError:
        return "unknown system"
