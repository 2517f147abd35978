"""The log of a run: a file of its own, with warnings of this project on the terminal too."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.run.progress import Progress


@contextmanager
def logging_to(path: Path, progress: Progress) -> Iterator[None]:
    """Everything goes to the run's log; warnings of this project to the terminal too."""
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    screen = _Lines(progress)
    screen.setLevel(logging.WARNING)
    screen.addFilter(lambda line: line.exc_info is None and line.levelno < logging.ERROR)
    ours = [logging.getLogger(name) for name in ("projgan", "bench")]
    logging.captureWarnings(True)
    python = logging.getLogger("py.warnings")
    for logger in [*ours, python]:
        logger.addHandler(file)
        logger.propagate = False
    for logger in ours:
        logger.setLevel(logging.INFO)
        logger.addHandler(screen)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger in [*ours, python]:
            logger.removeHandler(file)
            logger.removeHandler(screen)
            logger.propagate = True
        file.close()


class _Lines(logging.Handler):
    """Log lines as lines of the progress display."""

    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.line(f"note: {record.getMessage()}")
