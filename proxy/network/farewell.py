"""TLS's last word on one side of a connection, while the other side still speaks. `stream.py` calls it."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress

ALERT_OCTETS = 1_024  # an encrypted alert is some 24 to 64 octets (RFC 8446 §5.2)


def close_notify(tls: ssl.SSLSocket) -> bytes:
    """TLS's close_notify, encrypted and yet to be sent; `tls` stays able to read.

    `SSLSocket.unwrap` also waits for the peer's own close_notify, and if it meets mail instead, that mail is lost: this
    is how proxies come to deliver nothing after a half-close. So the descriptor is lent another socket for the moment:
    OpenSSL writes its alert there and finds nothing to read. Empty if the session is broken already.

    Raises:
        OSError: no descriptor is left to lend.
    """
    lent, alert_side = socket.socketpair()
    with lent, alert_side:
        lent.setblocking(False)
        alert_side.setblocking(False)
        kept = os.dup(tls.fileno())
        try:
            os.dup2(lent.fileno(), tls.fileno(), inheritable=False)
            try:
                tls.unwrap()
            except (ssl.SSLError, OSError, ValueError):
                pass  # "nothing to read" is what we want
            finally:
                os.dup2(kept, tls.fileno(), inheritable=False)
        finally:
            os.close(kept)
        with suppress(BlockingIOError):
            return alert_side.recv(ALERT_OCTETS)
    return b""
