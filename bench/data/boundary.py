"""Where readers meet files: whatever a parser throws leaves as one line that names the file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.config import BenchError, MissingError, UsageError

__all__ = ["check_declared", "is_leftover", "reading"]

_FREE_BYTES = 64 << 20
_MOST_PER_BYTE = 256  # deflate reaches 1032, images about 10
_CHATTY = ("tifffile", "rasterio")
_MEMORY = ("memory allocation failed", "can't allocate memory")
_LOCKED = ("unable to lock file", "already open for")


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Guard a block that parses ``path``, which should be a ``kind`` such as ``TIFF file``.

    Errors meant for the user pass; any other becomes one. Parsers' warnings and logs are kept
    off standard error, except that an error tifffile only logs is an error here, too.

    Raises:
        MissingError: no such file, not permitted, locked, or no decoder for it.
        UsageError: anything else that goes wrong while reading.
    """
    said = _Said()
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [said], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
        if said.errors:
            raise ValueError(said.errors[0])
    except BenchError:
        raise
    except Exception as error:
        raise _explain(path, kind, error) from error
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate


class _Said(logging.Handler):
    """Keeps the errors that a parser logs and then goes on after."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(record.getMessage())


def _explain(path: Path, kind: str, error: Exception) -> BenchError:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, BlockingIOError) or any(words in text for words in _LOCKED):
        return MissingError(
            f"{path} is locked: another program has it open for writing; close it there first"
        )
    if isinstance(error, FileNotFoundError) and not path.exists():
        return MissingError(f"no file {path}")
    if isinstance(error, PermissionError):
        return MissingError(f"{path} may not be read (permission denied)")
    if isinstance(error, MemoryError) or any(words in text for words in _MEMORY):
        return UsageError(f"{path} asks for more memory than there is ({text})")
    if isinstance(error, ImportError) or "imagecodecs" in text:
        return MissingError(
            f"{path}: nothing here decodes its compression or bit depth ({text}); pip install "
            f"imagecodecs, or rasterio"
        )
    return UsageError(f"{path} is truncated or no {kind} that can be read ({text})")


def check_declared(path: Path, what: str, size: int, stored: int) -> None:
    """Refuse an array that no file of this size holds, before memory is asked for.

    Args:
        path: the file, for the message.
        what: the array.
        size: bytes it declares.
        stored: bytes on disk that it comes from.

    Raises:
        UsageError: more than any compression of images makes plausible.
    """
    if size > max(_FREE_BYTES, _MOST_PER_BYTE * stored):
        raise UsageError(
            f"{path}: {what} declares {size / 2**30:.3g} GiB, and {stored / 2**20:.3g} MiB are "
            f"stored; expected at most {_MOST_PER_BYTE} times as much: its header is damaged"
        )


def is_leftover(path: Path, below: Path) -> bool:
    """Whether a file under ``below`` is hidden, a Mac's companion or an unfinished write."""
    parts = path.relative_to(below).parts
    return any(part.startswith((".", "__MACOSX")) for part in parts) or ".part" in path.suffixes
