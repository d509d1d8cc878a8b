"""What can be wrong with history. Each is a sentence for a person: what is wrong where, and what to do."""

from __future__ import annotations


class ArchiveError(Exception):
    """Shown as it is, without a trace."""


class ArchiveDamaged(ArchiveError):
    """An object is missing, or its bytes are not those that were written."""


class ArchiveUnreachable(ArchiveError):
    """The object storage does not answer, or refuses us: the same may work later."""


class HistoryGap(ArchiveError):
    """What was asked for lies neither in the archive nor on the log."""


class ForeignArchive(ArchiveError):
    """The archive goes on where the log has not been: they do not belong together, and nothing may be added."""
