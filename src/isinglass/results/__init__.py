"""Results of runs: as records, in files, and what they come from."""

from isinglass.results.files import RESULTS, DamagedLine, Records, append_record, file_below, read_records, run_key
from isinglass.results.provenance import installed_versions, source_commit
from isinglass.results.record import CLOCK, FailedRun, RunResult, Score, Scores

__all__ = [
    "CLOCK",
    "RESULTS",
    "DamagedLine",
    "FailedRun",
    "Records",
    "RunResult",
    "Score",
    "Scores",
    "append_record",
    "file_below",
    "installed_versions",
    "read_records",
    "run_key",
    "source_commit",
]
