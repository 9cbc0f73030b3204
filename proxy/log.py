"""GROUND: the log. One line per event: time, level, event, `key=value` (PRODUCT section 6), or the same as JSON.

`Log("session").info("login refused", peer=..., reason=...)`. It is the standard library's logging underneath, so that
every library's lines come out in the same form. No secret is ever handed to it: the types that carry one do not print.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Literal, TextIO

Field = str | int | float | bool | None
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/@_-+,*<>()[]{}")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""syslog(3)'s numbers."""
MAX_FIELD_CHARACTERS = 500  # a line stays a line that a person reads


class Log:
    """Events of one part of the program; `bound` fields stand on every line (a session's id)."""

    def __init__(self, part: str, **bound: Field) -> None:
        self._logger = logging.getLogger(f"mailferry.{part}")
        self._bound = bound
        self._aloud: Callable[[], bool] = lambda: False

    def bind(self, **fields: Field) -> Log:
        """The same log with further fields on every line."""
        bound = copy(self)
        bound._bound = {**self._bound, **fields}
        return bound

    def aloud(self, while_: Callable[[], bool]) -> Log:
        """The same log, which says everything as long as this holds, whatever the level."""
        loud = copy(self)
        loud._aloud = while_
        return loud

    @property
    def debugs(self) -> bool:
        """Whether a line of debug level is said now."""
        return self._logger.isEnabledFor(logging.DEBUG) or self._aloud()

    def debug(self, event: str, **fields: Field) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Field) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Field) -> None:
        self._emit(logging.ERROR, event, fields)

    def failure(self, event: str, error: BaseException, **fields: Field) -> None:
        """An error that nobody foresaw: the line, and its traceback."""
        self._logger.error(event, extra={"fields": {**self._bound, **fields}}, exc_info=error)

    def _emit(self, level: int, event: str, fields: dict[str, Field]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": {**self._bound, **fields}})
        elif self._aloud():
            said = {"fields": {**self._bound, **fields}}
            self._logger.handle(self._logger.makeRecord(self._logger.name, level, "", 0, event, (), None, extra=said))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {key: value for key, value in fields.items() if value is not None}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _quoted(value: Field) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    text = text[:MAX_FIELD_CHARACTERS]
    return text if text and all(c in _BARE for c in text) else json.dumps(text)


def _priority(levelno: int) -> int:
    return next(number for level, number in _PRIORITIES if levelno >= level)


class _ForJournal(logging.Formatter):
    """Each line with its priority before it (sd-daemon(3)), so that `journalctl -p warning` knows it."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        priority = _priority(record.levelno)
        return "\n".join(f"<{priority}>{line}" for line in self._form.format(record).split("\n"))


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()}"
        line += "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


def _goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd joined this stream to its journal; `JOURNAL_STREAM` alone would be inherited too."""
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{facts.st_dev}:{facts.st_ino}"


def marked(text: str) -> str:
    """An error for standard error; with its priority where that is systemd's journal, since units run commands too."""
    if not _goes_to_journal(sys.stderr, os.environ):
        return text
    return "\n".join(f"<{_priority(logging.ERROR)}>{line}" for line in text.split("\n"))


def start(level: str, form: Literal["text", "json"]) -> None:
    """Send all events of at least this level to standard error, in this form.

    msal stays at INFO or above: at DEBUG it would log codes and bodies (FACTS 4.7).
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = _TextFormatter() if form == "text" else _JsonFormatter()
    handler.setFormatter(_ForJournal(formatter) if _goes_to_journal(sys.stderr, os.environ) else formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    ours = logging.getLogger("mailferry")
    ours.setLevel(level.upper())
    root.setLevel(max(logging.WARNING, ours.level))  # libraries
