"""A machine with a booted systemd, in namespaces over this one's file system. Not a test.

What is installed below its `layer` is as if it were installed there. It needs root, who may make namespaces; without it
the tests fail, and say so.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.servers.child import Child, ServerFailed

BOOT = Path(__file__).with_name("boot")
NAMESPACES = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net")
COMMAND_DEADLINE_S = 60
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CLONE_NEWNET = 0x40000000  # sched.h; os.setns is Python 3.12's
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Machine:
    """Booted from its making to `close`."""

    def __init__(self, folder: Path, layer: Path) -> None:
        assert os.geteuid() == 0, "run the tests as root: a systemd is booted"
        root = folder / "machine"
        root.mkdir()
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", str(BOOT), str(root), str(layer)]
        self._child = Child("systemd", command, folder / "boot.log")
        self._child.wait_ready(self._is_up)

    def run(self, *command: str, exit_code: int | None = 0) -> str:
        """What a command there says; it must end with this exit code, if one is given."""
        done = self._enter("env", "-i", f"PATH={PATH}", "LANG=C.UTF-8", "HOME=/root", *command)
        said = done.stdout + done.stderr
        if exit_code is not None and done.returncode != exit_code:
            log = self._enter("journalctl", "--no-pager", "--lines=20", "--output=cat").stdout
            raise AssertionError(f"{command} gave {done.returncode}: {said}\n{log}")
        return said.strip()

    def write(self, file: str, text: str, mode: str = "644") -> None:
        self.run(
            "sh", "-c", 'mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"; chmod "$3" "$1"', "sh", file, text, mode
        )

    def show(self, unit: str, name: str) -> str:
        """A property, as systemd has it."""
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def journal(self, *arguments: str) -> str:
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--quiet", "--output=cat", "--unit=mailferry", *arguments)

    def inside(self, work: Callable[[], T]) -> T:
        """Do it in this process, in a thread that is on the machine's network."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/proc/{self._init()}/ns/net") as network:
                    if _libc.setns(network.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        self._child.kill()

    def _is_up(self) -> bool:
        try:
            done = self._enter("systemctl", "is-system-running")
        except ServerFailed:
            return False
        return done.stdout.strip() == "running"

    def _enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        spaces = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net", "--root", "--wd")
        return subprocess.run(
            ["nsenter", "--target", str(self._init()), *spaces, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )

    def _init(self) -> int:
        """The process that is number 1 there, as it is numbered here."""
        parent = self._child.process.pid
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        raise ServerFailed("it has not begun")


def greeted(port: int, host: str = "127.0.0.1") -> bytes:
    """The first octets that a listener says."""
    with socket.create_connection((host, port), COMMAND_DEADLINE_S) as client:
        return client.recv(64)
