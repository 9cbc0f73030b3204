"""Thunderbird without a window, and Marionette, by which it is told what to do. Not a test: `test_thunderbird.py`."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.clients.berth import PATIENCE_S, Berth, installed
from tests.servers.child import Child, free_port

SETTINGS = """\
user_pref("marionette.port", %d);
user_pref("app.update.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("mail.provider.suppress_dialog_on_startup", true);
user_pref("mail.shell.checkDefaultClient", false);
user_pref("mail.spotlight.firstRunDone", true);
user_pref("network.dns.offline-localhost", false);
"""


class Marionette:
    """One session, with the rights of Thunderbird's own code. A packet is its length, a colon, and JSON."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._read()  # the greeting
        self._call("WebDriver:NewSession")
        self._call("WebDriver:SetTimeouts", script=int(PATIENCE_S * 1000))
        self._call("Marionette:SetContext", value="chrome")

    def run(self, script: str, *arguments: object) -> Any:
        """What the script gives to its last argument, a function."""
        return self._call("WebDriver:ExecuteAsyncScript", script=script, args=arguments)["value"]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _call(self, name: str, **parameters: object) -> Any:
        self._number += 1
        packet = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(packet), packet))
        _, _, error, result = self._read()
        assert error is None, f"{name}: {error}"
        return result

    def _read(self) -> Any:
        digits = b""
        while (octet := self._file.read(1)) != b":":
            assert octet, "Thunderbird has gone"
            digits += octet
        return json.loads(self._file.read(int(digits)))


@contextmanager
def thunderbird(berth: Berth) -> Iterator[Marionette]:
    """A new profile in the berth's home."""
    port = free_port()
    profile = berth.write("profile/user.js", SETTINGS % port).parent
    command = [
        *(installed("thunderbird"), "--headless", "--marionette", "--remote-allow-system-access"),
        *("--profile", str(profile)),
    ]
    child = Child("thunderbird", command, berth.home / "thunderbird.log", environment={"HOME": str(berth.home)})
    try:
        child.wait_ready(lambda: _listens(port))
        marionette = Marionette(port)
        try:
            yield marionette
        finally:
            marionette.close()
    finally:
        child.kill()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
