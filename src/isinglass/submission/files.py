"""The eleven files at the root of the zip. Each has a header and one row for each row of a test set.

index   prediction        tab-separated
0       entailment        words: MNLI-m, MNLI-mm, AX, QNLI, RTE
1       not_entailment    `0` or `1`: CoLA, SST-2, MRPC, QQP, WNLI; a number from 0 to 5: STS-B
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from isinglass.tasks import TASKS, Task

HEADER: Final = b"index\tprediction"
LARGEST_FILE: Final = 16 << 20  # bytes; the largest of the eleven, QQP.tsv, has 3.4 MB
LARGEST_ZIP: Final = 32 << 20  # bytes, packed and unpacked; all eleven have less than 5 MB
NUMBER: Final = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class GlueFile:
    """One of the eleven: the `task` whose runs answer it and the `key` of their predictions; what its test set is like."""

    name: str
    task: Task
    key: str
    rows: int
    majority: str


def _file(name: str, task: str, key: str, majority: str) -> GlueFile:
    split = TASKS["ax"].split("test") if key == "ax" else TASKS[task].split(key)
    return GlueFile(name=name, task=TASKS[task], key=key, rows=split.rows, majority=majority)


FILES: Final = (  # the last column is the most frequent label of the published dev set
    _file("CoLA.tsv", "cola", "test", "1"),  # 721 of 1043
    _file("SST-2.tsv", "sst2", "test", "1"),  # 444 of 872
    _file("MRPC.tsv", "mrpc", "test", "1"),  # 279 of 408
    _file("STS-B.tsv", "stsb", "test", "2.500"),  # the middle of 0 to 5
    _file("QQP.tsv", "qqp", "test", "0"),  # 25545 of 40430
    _file("MNLI-m.tsv", "mnli", "test_matched", "entailment"),  # 3479 of 9815
    _file("MNLI-mm.tsv", "mnli", "test_mismatched", "entailment"),  # 3463 of 9832
    _file("QNLI.tsv", "qnli", "test", "not_entailment"),  # 2761 of 5463
    _file("RTE.tsv", "rte", "test", "entailment"),  # 146 of 277
    _file("WNLI.tsv", "wnli", "test", "0"),  # 40 of 71
    _file("AX.tsv", "mnli", "ax", "entailment"),  # as MNLI
)
NAMES: Final = tuple(file.name for file in FILES)


def expected_rows(rows: Mapping[str, int] | None) -> dict[str, int]:
    """Return the rows of each file: those of the published test sets, or `rows` where it names them."""
    return {file.name: file.rows for file in FILES} | dict(rows or {})
