"""The certificates that listeners show: what they are now, and what changed since programs were told to trust them.

The daemon notes in the state folder which it has shown. A change of what programs trust is announced by the log, the
page and `mailferry ca`, until somebody has read it, or for 30 days. What it is not: the making of certificates
(`proxy/network/tls.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proxy.app.programs.connection import Authority
from proxy.config import Config, Listener
from proxy.config.files import write_atomically
from proxy.config.settings import ListenerTls
from proxy.log import Log
from proxy.network.certificates import Shown, read_certificate

ANNOUNCED_S = 30 * 24 * 3600
MAX_CHANGES = 20  # announced at once; a machine that changes more often has other troubles
OURS = "authority"
_FILE = "shown.json"

log = Log("certificates")


@dataclass(frozen=True, slots=True)
class Change:
    """Programs that trusted the old one warn, or refuse, until they are told of the new one."""

    what: str
    """`authority`, or the listener: `imap localhost:993`."""
    old: str
    new: str
    at_s: float
    """Seconds since 1970."""

    def __str__(self) -> str:
        subject = (
            "The local certificate authority" if self.what == OURS else f"The certificate of the {self.what} listener"
        )
        day = time.strftime("%Y-%m-%d", time.gmtime(self.at_s))
        return (
            f"{subject} changed on {day}: each mail program that trusted the old one must be told to trust the new one."
        )


@dataclass(frozen=True, slots=True)
class Presented:
    """What one listener shows."""

    listener: str
    file: Path
    certificate: Shown
    ours: bool
    """Signed by the local authority."""


def folder(config: Config) -> Path:
    return config.state_dir / "tls"


def authority_file(config: Config) -> Path:
    return folder(config) / "ca.pem"


def uses_authority(config: Config) -> bool:
    """Whether any listener shows a certificate of the local authority."""
    return any(each.certificate is None and each.tls is not ListenerTls.OFF for each in config.listeners)


def read_authority(config: Config) -> Authority | None:
    """The local authority; None where it is not made yet, not readable, or not used."""
    if not uses_authority(config):
        return None
    file = authority_file(config)
    try:
        shown, pem = read_certificate(file), file.read_text()
    except (OSError, ValueError):
        return None
    return Authority(file, pem, shown.sha256, shown.expires.date().isoformat())


def presented(config: Config) -> list[Presented]:
    """What each listener shows, as its file is now; those that cannot be read are left out."""
    found = []
    for listener in config.listeners:
        if listener.tls is ListenerTls.OFF:
            continue
        file = listener.certificate.file if listener.certificate else folder(config) / "server.pem"
        try:
            found.append(Presented(_called(listener), file, read_certificate(file), listener.certificate is None))
        except (OSError, ValueError) as error:
            log.debug("a certificate cannot be read", file=str(file), reason=str(error))
    return found


def note_shown(config: Config, now_s: float) -> list[Change]:
    """Note what is shown from now on; what has changed, which is announced from now on. Called by the daemon."""
    known = _read(config)
    trusted = _trusted(config)
    before = known.get("trusted", {})
    fresh = [
        Change(what, str(before[what]), sha256, now_s)
        for what, sha256 in trusted.items()
        if what in before and before[what] != sha256
    ]
    kept = [each for each in _changes(known, now_s) if all(each.what != new.what for new in fresh)]
    changes = [*fresh, *kept][:MAX_CHANGES]
    _write(config, {"trusted": {**before, **trusted}, "changes": [asdict(each) for each in changes]}, known)
    for change in fresh:
        log.warning("a certificate changed", what=change.what, old=change.old, new=change.new, note=str(change))
    return fresh


def announcements(config: Config, now_s: float) -> list[Change]:
    """Changes that nobody has read yet."""
    return _changes(_read(config), now_s)


def acknowledge(config: Config) -> None:
    """Somebody has read them. Raises: OSError."""
    known = _read(config)
    if known.get("changes"):
        write_atomically(folder(config), _FILE, json.dumps({**known, "changes": []}))


def _trusted(config: Config) -> Mapping[str, str]:
    """What programs were told to trust, by what it is: our authority, and certificates that stand for themselves."""
    found: dict[str, str] = {}
    authority = read_authority(config)
    if authority is not None:
        found[OURS] = authority.sha256
    for each in presented(config):
        if not each.ours and each.certificate.self_signed:
            found[each.listener] = each.certificate.sha256
    return found


def _called(listener: Listener) -> str:
    host = f"[{listener.address}]" if ":" in listener.address else listener.address
    return f"{listener.protocol} {host}:{listener.port}"


def _changes(known: Mapping[str, Any], now_s: float) -> list[Change]:
    changes = (Change(**each) for each in _sequence(known.get("changes")))
    return [each for each in changes if now_s - each.at_s < ANNOUNCED_S]


def _sequence(value: Any) -> Sequence[dict[str, Any]]:
    keys = {"what", "old", "new", "at_s"}
    return [each for each in value if isinstance(each, dict) and each.keys() == keys] if isinstance(value, list) else []


def _read(config: Config) -> Mapping[str, Any]:
    """What was noted; nothing where it is missing or damaged: it is only a memory."""
    try:
        known = json.loads((folder(config) / _FILE).read_text())
    except (OSError, ValueError):
        return {}
    sound = isinstance(known, dict) and isinstance(known.get("trusted", {}), dict)
    return known if sound else {}


def _write(config: Config, known: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    if known == before or not known["trusted"]:
        return
    try:
        write_atomically(folder(config), _FILE, json.dumps(known))
    except OSError as error:
        log.warning("cannot note which certificates are shown", reason=str(error))
