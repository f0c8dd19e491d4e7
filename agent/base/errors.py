"""gpuvigil's exceptions and exit codes.

VigilError
 +-- ConfigError        a file or flag the user wrote is wrong (exit 2)
 +-- CannotTell         the question has no answer now, e.g. no driver (exit 3)
 +-- UndoFailed         an injected fault could not be taken back (exit 4)
 +-- CatalogueError     code used a metric or label that is not declared
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every `gpuvigil` command, except under `--nagios`."""

    GOOD = 0
    BAD = 1
    USAGE = 2
    UNKNOWN = 3
    UNDO_FAILED = 4
    INTERRUPTED = 130


class VigilError(Exception):
    """Root of all errors a user may see; the text names the thing and the fix."""

    code: Exit = Exit.BAD


class ConfigError(VigilError):
    """A configuration file, environment override or flag is wrong."""

    code = Exit.USAGE


class CannotTell(VigilError):
    """The state cannot be determined (driver absent, server unreachable)."""

    code = Exit.UNKNOWN


class UndoFailed(VigilError):
    """A fault was injected and its undo could not be verified."""

    code = Exit.UNDO_FAILED


class CatalogueError(VigilError):
    """A sample, rule or panel used a metric or label that the catalogue lacks."""
