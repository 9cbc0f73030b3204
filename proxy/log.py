"""GROUND: the log. One line per event: time, level, event, `key=value` (PRODUCT section 6), or the same as JSON.

`Log("session").info("login refused", peer=..., reason=...)`. It is the standard library's logging underneath, so that
every library's lines come out in the same form. No secret is ever handed to it: the types that carry one do not print.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

Field = str | int | float | bool | None
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/@_-+,*<>()[]{}")
MAX_FIELD_CHARACTERS = 500  # a line stays a line that a person reads


class Log:
    """Events of one part of the program; `bound` fields stand on every line (a session's id)."""

    def __init__(self, part: str, **bound: Field) -> None:
        self._logger = logging.getLogger(f"mailferry.{part}")
        self._bound = bound

    def bind(self, **fields: Field) -> Log:
        """The same log with further fields on every line."""
        bound = Log.__new__(Log)
        bound._logger = self._logger
        bound._bound = {**self._bound, **fields}
        return bound

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


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {key: value for key, value in fields.items() if value is not None}


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _quoted(value: Field) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    text = text[:MAX_FIELD_CHARACTERS]
    return text if text and all(c in _BARE for c in text) else json.dumps(text)


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


def start(level: str, form: Literal["text", "json"]) -> None:
    """Send all events of at least this level to standard error, in this form.

    msal stays at INFO or above: at DEBUG it would log codes and bodies (FACTS 4.7).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter() if form == "text" else _JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    ours = logging.getLogger("mailferry")
    ours.setLevel(level.upper())
    root.setLevel(max(logging.WARNING, ours.level))  # libraries
