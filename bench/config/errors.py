"""Errors that end a command with one line instead of a traceback, and their exit codes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["BenchError", "ExitCode", "MissingError", "UsageError"]


class ExitCode(IntEnum):
    """Exit codes of every verb and protocol; CONTINUE: run the same command again for the rest."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    MISSING = 3
    CONTINUE = 75  # EX_TEMPFAIL of sysexits.h
    INTERRUPTED = 130


class BenchError(Exception):
    """Base of errors whose message is meant for the user: value, expectation, nearest choice."""

    exit_code = ExitCode.SOME_FAILED


class UsageError(BenchError, ValueError):
    """Bad input: a flag, an option, a file's content."""

    exit_code = ExitCode.USAGE


class MissingError(BenchError, FileNotFoundError):
    """Data, a device or an optional package that is not there."""

    exit_code = ExitCode.MISSING
