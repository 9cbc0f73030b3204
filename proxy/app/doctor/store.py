"""The stored sign-ins: whether the disk takes what must be kept. Asked of the daemon, or of an office of our own."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.app.doctor.findings import Finding, fail, ok
from proxy.app.doctor.scene import Scene
from proxy.login import Fault

STORE = "store"
_TITLE = "Stored sign-ins"


def check_store(scene: Scene) -> Iterator[Finding]:
    """Raises: DeskError: nobody can be asked."""
    told = scene.ask("store")
    if told["trouble"] is None:
        yield ok(STORE, _TITLE, f"{told['records']} stored, and the disk takes writes.")
        return
    yield fail(
        STORE,
        _TITLE,
        f"Nothing can be stored since {told['trouble_since']}: {told['trouble']}",
        Fault.MAILFERRY,
        "Make room on that disk, or make it writable again. Until then do not stop mailferry: new tokens are in its "
        "memory alone. It stores them by itself once it can.",
    )
