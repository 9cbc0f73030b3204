"""A command's side of the control socket: it asks the daemon, and waits. `control.py` answers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any, cast

from proxy.app.answers import Answer, DeskError

SOCKET_NAME = "control.sock"
ANSWER_LIMIT_S = 16 * 60  # a device code lives fifteen minutes (FACTS 3.3)


class NoDaemon(Exception):
    """Nobody answers at the control socket."""


def ask_daemon(state_dir: Path, verb: str, arguments: dict[str, Any]) -> Answer:
    """Ask the daemon of this state folder, and wait for its answer.

    Raises:
        NoDaemon: none runs.
        DeskError: it cannot do that; or it went away before it answered.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        try:
            connection.connect(os.fspath(state_dir / SOCKET_NAME))
        except PermissionError:
            raise DeskError(f"The daemon's control socket in {state_dir} is not yours: run this as its user.") from None
        except OSError:
            raise NoDaemon from None
        try:
            connection.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        except (OSError, ValueError):
            raise DeskError("The daemon went away before it answered.") from None
    if "error" in answer:
        raise DeskError(answer["error"], answer["exit_code"])
    return cast("Answer", answer["answer"])
