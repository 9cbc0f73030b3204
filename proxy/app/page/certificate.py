"""The certificate on the page: what mail programs are told to trust, how each system does it, what changed."""

from __future__ import annotations

import time
from typing import Any

from proxy.app.certificates import (
    acknowledge,
    announcements,
    authority_file,
    presented,
    read_authority,
    uses_authority,
)
from proxy.app.page.wire import Answer, Asked, Download, Page, Problem, Redirect, Route
from proxy.app.programs.trusting import FILE, SYSTEMS
from proxy.config import Config
from proxy.network.certificates import read_certificate

PATH = f"/certificate/{FILE}"


async def show(asked: Asked) -> Answer:
    config = asked.service.config()
    seen = await asked.service.in_thread(lambda: _look(config))
    return Page("certificate.html", systems=SYSTEMS, file=PATH, **seen)


async def download(asked: Asked) -> Answer:
    authority = await asked.service.in_thread(lambda: read_authority(asked.service.config()))
    if authority is None:
        return Problem(404, "There is no certificate to trust", "No listener shows one of the local authority.")
    return Download(authority.pem.encode(), "application/x-x509-ca-cert", FILE)


async def note_read(asked: Asked) -> Answer:
    """A change is announced no more."""
    try:
        await asked.service.in_thread(lambda: acknowledge(asked.service.config()))
    except OSError as error:
        return Problem(409, "This could not be noted", f"The state folder: {error.strerror or error}.")
    return Redirect("/certificate", "Noted. The change is not announced any more.")


def _look(config: Config) -> dict[str, Any]:
    authority = None
    if uses_authority(config):
        try:
            authority = read_certificate(authority_file(config))
        except (OSError, ValueError):
            authority = None
    return {
        "authority": authority,
        "presented": presented(config),
        "changes": announcements(config, time.time()),
    }


ROUTES = (
    Route("GET", "/certificate", show, here="certificate"),
    Route("GET", PATH, download, here="certificate"),
    Route("POST", "/certificate/acknowledge", note_read, here="certificate"),
)
