"""The last warnings of the log, kept in memory, so that the doctor's report can tell them.

What it is not: the log, which goes to standard error and is kept by systemd. The daemon makes it.
"""

from __future__ import annotations

import logging
from collections import deque

MAX_LINES = 40
MAX_LINE_CHARACTERS = 600  # a field has at most 500 (log.py)


class Recollection(logging.Handler):
    """Remembers from its making until `close`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        logging.getLogger("mailferry").addHandler(self)

    @property
    def lines(self) -> list[str]:
        """Oldest first, in the log's own form; of a traceback only what it is about."""
        return list(self._lines)

    def emit(self, record: logging.LogRecord) -> None:
        form = next((each.formatter for each in logging.getLogger().handlers if each.formatter), None)
        line = form.format(record) if form else record.getMessage()
        self._lines.append(line.partition("\n")[0][:MAX_LINE_CHARACTERS])

    def close(self) -> None:
        logging.getLogger("mailferry").removeHandler(self)
        super().close()
