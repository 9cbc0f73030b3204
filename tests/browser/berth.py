"""A mailferry whose page a browser opens: an empty state folder, a page on a free port. Not a test."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.end_to_end.ferry import Ferry
from tests.servers.child import free_port, wait_until
from tests.servers.mailhost import MailHost

LINK = r"http://\S+/open/\S+"


class FerryWithPage(Ferry):
    """Its configuration has no app and no account."""

    def __init__(self, folder: Path, host: MailHost, upstreams: Mapping[str, str] | None = None) -> None:
        self.page_port = free_port()
        super().__init__(folder, host, upstreams)

    def configuration(self, upstreams: Mapping[str, str]) -> str:
        return super().configuration(upstreams).replace("page: off\n", f"page: 127.0.0.1:{self.page_port}\n")

    @property
    def page(self) -> str:
        """Where the page is, without the path."""
        return f"http://localhost:{self.page_port}"

    def printed_link(self) -> str:
        """The one-time link that `serve` printed as it started."""
        wait_until("serve prints a link", lambda: re.search(LINK, self.log))
        (link,) = set(re.findall(LINK, self.log))
        return str(link)

    def new_link(self) -> str:
        """As `mailferry page` prints it."""
        (link,) = set(re.findall(LINK, self.run("page").output))
        return str(link)


def trusted(certificate: Path) -> str:
    """What Chromium calls a certificate that it shall take: the digest of its public key."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()
