"""The agent's log: JSON lines in a file that rotates, and the same on standard error for the machine's console.

On the standard library alone: a logging framework would cost each agent 15 MB and a tenth of a second at its start.
"""

import json
import logging
import logging.handlers
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

FILE_BYTES, FILES_KEPT = 10 * 1024 * 1024, 5
VALUES = "wap_values"


class Log:
    """One module's log: an event in words, and values by name. Secrets are never given to it."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **values: object) -> None:
        """What happened."""
        self._logger.info(event, extra={VALUES: values})

    def warning(self, event: str, **values: object) -> None:
        """What went wrong and is dealt with."""
        self._logger.warning(event, extra={VALUES: values})

    def error(self, event: str, **values: object) -> None:
        """What needs a person."""
        self._logger.error(event, extra={VALUES: values})

    def exception(self, event: str, **values: object) -> None:
        """A defect of ours, with its traceback."""
        self._logger.error(event, extra={VALUES: values}, exc_info=True)


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, event, and the values given."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, VALUES, {}),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


def open_logs(path: Path) -> None:
    """Send everything to `path` and to standard error."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT)
    handlers: list[logging.Handler] = [file, logging.StreamHandler(sys.stderr)]
    for handler in handlers:
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.getLogger("pymongo").setLevel(logging.WARNING)
