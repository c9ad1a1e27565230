"""The nine GLUE tasks, the AX diagnostic and the embedded task, as values.

Columns, sizes and labels are those of the files that https://gluebenchmark.com/tasks distributes; hub columns and
integer labels those of `nyu-mll/glue`. The dev majorities follow from the label counts of those dev sets.
"""

import importlib.resources
from pathlib import Path
from typing import Any, Final

from isinglass.metrics import Metric
from isinglass.tasks.kinds import REGRESSION
from isinglass.tasks.task import Split, Task

HUB_REPO: Final = "nyu-mll/glue"
_NLI: Final = ("contradiction", "entailment", "neutral")
_HUB_NLI: Final = ("entailment", "neutral", "contradiction")
_ENTAILMENT: Final = ("entailment", "not_entailment")
_BINARY: Final = ("0", "1")
_PAIR: Final = ("sentence1", "sentence2")
_PREMISE: Final = ("premise", "hypothesis")


def _split(name: str, rows: int, texts: tuple[str, ...] | tuple[int, ...], label: str | int | None) -> Split:
    return Split(name=name, file=f"{name}.tsv", rows=rows, text_columns=texts, label_column=label)


def _splits(rows: tuple[int, int, int], texts: tuple[str, ...], label: str) -> dict[str, Any]:
    """Return train, dev and test of a task whose files have the same columns, but for the hidden labels of the test set."""
    train, dev, test = rows
    return {
        "train": _split("train", train, texts, label),
        "dev": (_split("dev", dev, texts, label),),
        "test": (_split("test", test, texts, None),),
    }


def _published(title: str, **fields: Any) -> Task:
    """Return a task that is called after its title, with the labels 0 and 1 where `fields` has no others."""
    return Task(title=title, **{"name": title.replace("-", "").lower(), "folder": title, "labels": _BINARY} | fields)


_COLA: Final = _published(
    "CoLA",
    hub_text_columns=("sentence",),
    label_words=("unacceptable", "acceptable"),
    train=_split("train", 8551, (3,), 1),
    dev=(_split("dev", 1043, (3,), 1),),
    test=(_split("test", 1063, ("sentence",), None),),
    metrics=(Metric.MATTHEWS,),
    dev_majority=((0.0,),),
    citation="Warstadt et al. 2019, Neural Network Acceptability Judgments",
)

_SST2: Final = _published(
    "SST-2",
    label_words=("negative", "positive"),
    **_splits((67349, 872, 1821), ("sentence",), "label"),
    metrics=(Metric.ACCURACY,),
    dev_majority=((444 / 872,),),
    citation="Socher et al. 2013, Recursive Deep Models for Semantic Compositionality",
)

_MRPC: Final = _published(
    "MRPC",
    hub_text_columns=_PAIR,
    label_words=("not_equivalent", "equivalent"),
    **_splits((3668, 408, 1725), ("#1 String", "#2 String"), "Quality"),
    metrics=(Metric.F1, Metric.ACCURACY),
    dev_majority=((2 * 279 / (2 * 279 + 129), 279 / 408),),
    citation="Dolan and Brockett 2005, Automatically Constructing a Corpus of Sentential Paraphrases",
)

_STSB: Final = _published(
    "STS-B",
    kind=REGRESSION,
    labels=None,
    **_splits((5749, 1500, 1379), _PAIR, "score"),
    metrics=(Metric.PEARSON, Metric.SPEARMAN),
    citation="Cer et al. 2017, SemEval-2017 Task 1: Semantic Textual Similarity",
)

_QQP: Final = _published(
    "QQP",
    label_words=("not_duplicate", "duplicate"),
    **_splits((363846, 40430, 390965), ("question1", "question2"), "is_duplicate"),
    metrics=(Metric.ACCURACY, Metric.F1),
    dev_majority=((25545 / 40430, 0.0),),
    skips_short_rows=True,  # the original release has a few rows with missing columns
    citation="Iyer et al. 2017, First Quora Dataset Release: Question Pairs",
)

_MNLI: Final = _published(
    "MNLI",
    hub_text_columns=_PREMISE,
    labels=_NLI,
    hub_labels=_HUB_NLI,
    train=_split("train", 392702, _PAIR, "gold_label"),
    dev=(_split("dev_matched", 9815, _PAIR, "gold_label"), _split("dev_mismatched", 9832, _PAIR, "gold_label")),
    test=(_split("test_matched", 9796, _PAIR, None), _split("test_mismatched", 9847, _PAIR, None)),
    metrics=(Metric.ACCURACY,),
    dev_majority=((3479 / 9815,), (3463 / 9832,)),
    citation="Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference",
)

_QNLI: Final = _published(
    "QNLI",
    labels=_ENTAILMENT,
    **_splits((104743, 5463, 5463), ("question", "sentence"), "label"),
    metrics=(Metric.ACCURACY,),
    dev_majority=((2761 / 5463,),),
    citation="Rajpurkar et al. 2016 (SQuAD), recast by Wang et al. 2019 (GLUE), second release",
)

_RTE: Final = _published(
    "RTE",
    labels=_ENTAILMENT,
    **_splits((2490, 277, 3000), _PAIR, "label"),
    metrics=(Metric.ACCURACY,),
    dev_majority=((146 / 277,),),
    citation="Dagan et al. 2006, Bar Haim et al. 2006, Giampiccolo et al. 2007, Bentivogli et al. 2009",
)

_WNLI: Final = _published(
    "WNLI",
    label_words=("not_entailment", "entailment"),
    **_splits((635, 71, 146), _PAIR, "label"),
    metrics=(Metric.ACCURACY,),
    dev_majority=((40 / 71,),),
    warning=(
        "WNLI's dev set is adversarial: its sentences stand in train under the opposite label, so a model that learns "
        "train by heart scores below the majority; a score near or below the majority says nothing about the model "
        "(GLUE FAQ 12)."
    ),
    citation="Levesque et al. 2011, The Winograd Schema Challenge, recast by Wang et al. 2019 (GLUE)",
)

_AX: Final = _published(
    "AX",
    folder="diagnostic",
    hub_text_columns=_PREMISE,
    labels=_NLI,
    hub_labels=_HUB_NLI,
    train=None,
    test=(Split(name="test", file="diagnostic.tsv", rows=1104, text_columns=_PAIR, label_column=None),),
    metrics=(Metric.MATTHEWS,),
    predicted_by="mnli",
    warning="AX is a test set without published labels: a model trained on MNLI predicts it.",
    citation="Wang et al. 2019, GLUE: the broad-coverage diagnostic set",
)

GLUE: Final = (_COLA, _SST2, _MRPC, _STSB, _QQP, _MNLI, _QNLI, _RTE, _WNLI, _AX)

# English sentence pairs written for this project, which ship in the wheel (CC0)
DEMO: Final = _published(
    "demo",
    folder="demo_data",
    labels=_NLI,
    train=_split("train", 939, _PREMISE, "label"),
    dev=(_split("dev", 180, _PREMISE, "label"),),
    test=(_split("test", 180, _PREMISE, "label"),),
    metrics=(Metric.ACCURACY,),
    dev_majority=((1 / 3,),),
    citation="written for isinglass: everyday and technical matters, each hypothesis written before its label was drawn",
)


def demo_data_dir() -> Path:
    """Return the directory whose folder `demo_data` holds the embedded files."""
    return Path(str(importlib.resources.files("isinglass.tasks")))
