"""What the desk does with the store as a whole: look at it, seal it with a new key, give it out sealed, take it back.

Tokens leave the office, and come back into it, only sealed with a backup's key, which `keeping.py` makes of a
passphrase; the passphrase itself stays there. What comes back is longer than a request may be, so it lies in a file in
the state folder (`SPOOL`). Who calls it: `desk.py`, and `keeping.py` for that file's name.
"""

from __future__ import annotations

import base64
import datetime
from contextlib import suppress
from typing import Any

from proxy.accounts.backup import MAX_BACKUP_OCTETS, BackupUnusable, open_records, seal_records
from proxy.accounts.sealed import Snapshot, StoreError
from proxy.accounts.states import Report
from proxy.app.office import Office
from proxy.config import Account
from proxy.config.files import FileTrouble, read_regular
from proxy.config.settings import Flow

SPOOL = "restore.sealed"
"""Where a restore's sealed records lie in the state folder while they are handed over."""


async def look(office: Office) -> dict[str, Any]:
    """Whether the store takes writes now, and since when it does not; nothing is changed."""
    with suppress(StoreError):  # which `trouble` tells from now on
        await office.store.probe()
    trouble = office.store.trouble
    return {
        "records": len(await office.store.names()),
        "trouble": trouble.text if trouble else None,
        "trouble_since": _moment(trouble.since_s) if trouble else None,
    }


async def rotate(office: Office) -> dict[str, Any]:
    """Raises: KeyUnusable, StoreError: nothing is changed."""
    rotated = await office.store.rotate()
    return {"records": rotated.records, "left_to_do": rotated.left_to_do}


async def back_up(office: Office, key: str, head: str) -> dict[str, Any]:
    """All records, sealed with this key (base64)."""

    def seal(snapshot: Snapshot) -> tuple[int, str]:
        return len(snapshot.records), seal_records(_octets(key), head, snapshot)

    count, box = await office.store.export(seal)
    return {"records": count, "box": box}


async def restore(office: Office, key: str, head: str, *, replace: bool, rehearse: bool) -> dict[str, Any]:
    """Take the records that lie in `SPOOL`.

    Raises:
        BackupUnusable, StoreError: nothing is changed.
    """

    def read() -> Snapshot:
        try:
            box, _ = read_regular(office.state_dir / SPOOL, MAX_BACKUP_OCTETS)
        except FileTrouble as trouble:
            raise BackupUnusable(f"{office.state_dir / SPOOL} {trouble}.") from None
        return open_records(_octets(key), head, box.decode("ascii", "replace"))

    restored = await office.store.restore(read, replace=replace, rehearse=rehearse)
    if restored.written and not rehearse:
        await office.reread()
    return {"written": list(restored.written), "same": list(restored.same), "kept": list(restored.kept)}


def report(office: Office, account: Account) -> Report:
    """The account's state, which also warns of a store that takes no write."""
    known = office.states.report(account)
    trouble = office.store.trouble
    if trouble is None or account.app.flow is Flow.APP_ONLY:
        return known
    since = _moment(trouble.since_s)
    warning = f"New tokens are kept in memory only, since {since}, and would be lost at a stop. {trouble.text}"
    return {**known, "warning": f"{known['warning']} {warning}" if known["warning"] else warning}


def _octets(key: str) -> bytes:
    return base64.b64decode(key, validate=True)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).isoformat().replace("+00:00", "Z")
