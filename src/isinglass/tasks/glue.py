"""The nine GLUE tasks, the AX diagnostic and the embedded task, as values.

Columns, sizes and labels are those of the files that https://gluebenchmark.com/tasks distributes; hub columns and
integer labels those of `nyu-mll/glue`. The dev majorities follow from the label counts of those dev sets.
"""

import importlib.resources
from pathlib import Path
from typing import Final

from isinglass.metrics import Metric
from isinglass.tasks.kinds import REGRESSION
from isinglass.tasks.task import Split, Task

HUB_REPO: Final = "nyu-mll/glue"
NLI: Final = ("contradiction", "entailment", "neutral")
HUB_NLI: Final = ("entailment", "neutral", "contradiction")
ENTAILMENT: Final = ("entailment", "not_entailment")
BINARY: Final = ("0", "1")


def _three(
    sizes: tuple[int, int, int],
    texts: tuple[str, ...],
    label: str,
    test_texts: tuple[str, ...] | None = None,
) -> tuple[Split, tuple[Split], tuple[Split]]:
    """Return train, dev and test of a task whose files have headers and are called `train.tsv`, `dev.tsv`, `test.tsv`."""
    train, dev, test = (
        Split(name=name, file=f"{name}.tsv", rows=rows, text_columns=columns, label_column=column, hub_split=hub)
        for name, rows, columns, column, hub in zip(
            ("train", "dev", "test"),
            sizes,
            (texts, texts, test_texts or texts),
            (label, label, None),
            ("train", "validation", "test"),
            strict=True,
        )
    )
    return train, (dev,), (test,)


_PAIR: Final = ("sentence1", "sentence2")

_cola_train, _cola_dev, _cola_test = (
    Split(name="train", file="train.tsv", rows=8551, text_columns=(3,), label_column=1, hub_split="train"),
    Split(name="dev", file="dev.tsv", rows=1043, text_columns=(3,), label_column=1, hub_split="validation"),
    Split(name="test", file="test.tsv", rows=1063, text_columns=("sentence",), label_column=None, hub_split="test"),
)
COLA: Final = Task(
    name="cola",
    title="CoLA",
    folder="CoLA",
    hub_config="cola",
    hub_text_columns=("sentence",),
    labels=BINARY,
    label_words=("unacceptable", "acceptable"),
    train=_cola_train,
    dev=(_cola_dev,),
    test=(_cola_test,),
    metrics=(Metric.MATTHEWS,),
    dev_majority=((0.0,),),
    citation="Warstadt et al. 2019, Neural Network Acceptability Judgments",
)

_train, _dev, _test = _three((67349, 872, 1821), ("sentence",), "label")
SST2: Final = Task(
    name="sst2",
    title="SST-2",
    folder="SST-2",
    hub_config="sst2",
    hub_text_columns=("sentence",),
    labels=BINARY,
    label_words=("negative", "positive"),
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.ACCURACY,),
    dev_majority=((444 / 872,),),
    citation="Socher et al. 2013, Recursive Deep Models for Semantic Compositionality",
)

_train, _dev, _test = _three((3668, 408, 1725), ("#1 String", "#2 String"), "Quality")
MRPC: Final = Task(
    name="mrpc",
    title="MRPC",
    folder="MRPC",
    hub_config="mrpc",
    hub_text_columns=_PAIR,
    labels=BINARY,
    label_words=("not_equivalent", "equivalent"),
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.F1, Metric.ACCURACY),
    dev_majority=((2 * 279 / (2 * 279 + 129), 279 / 408),),
    citation="Dolan and Brockett 2005, Automatically Constructing a Corpus of Sentential Paraphrases",
)

_train, _dev, _test = _three((5749, 1500, 1379), _PAIR, "score")
STSB: Final = Task(
    name="stsb",
    title="STS-B",
    folder="STS-B",
    hub_config="stsb",
    hub_text_columns=_PAIR,
    kind=REGRESSION,
    labels=None,
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.PEARSON, Metric.SPEARMAN),
    citation="Cer et al. 2017, SemEval-2017 Task 1: Semantic Textual Similarity",
)

_train, _dev, _test = _three((363846, 40430, 390965), ("question1", "question2"), "is_duplicate")
QQP: Final = Task(
    name="qqp",
    title="QQP",
    folder="QQP",
    hub_config="qqp",
    hub_text_columns=("question1", "question2"),
    labels=BINARY,
    label_words=("not_duplicate", "duplicate"),
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.ACCURACY, Metric.F1),
    dev_majority=((25545 / 40430, 0.0),),
    skips_short_rows=True,  # the original release has a few rows with missing columns
    citation="Iyer et al. 2017, First Quora Dataset Release: Question Pairs",
)


def _mnli(name: str, rows: int, label: str | None, hub: str) -> Split:
    return Split(name=name, file=f"{name}.tsv", rows=rows, text_columns=_PAIR, label_column=label, hub_split=hub)


MNLI: Final = Task(
    name="mnli",
    title="MNLI",
    folder="MNLI",
    hub_config="mnli",
    hub_text_columns=("premise", "hypothesis"),
    labels=NLI,
    hub_labels=HUB_NLI,
    train=_mnli("train", 392702, "gold_label", "train"),
    dev=(
        _mnli("dev_matched", 9815, "gold_label", "validation_matched"),
        _mnli("dev_mismatched", 9832, "gold_label", "validation_mismatched"),
    ),
    test=(
        _mnli("test_matched", 9796, None, "test_matched"),
        _mnli("test_mismatched", 9847, None, "test_mismatched"),
    ),
    metrics=(Metric.ACCURACY,),
    dev_majority=((3479 / 9815,), (3463 / 9832,)),
    citation="Williams et al. 2018, A Broad-Coverage Challenge Corpus for Sentence Understanding through Inference",
)

_train, _dev, _test = _three((104743, 5463, 5463), ("question", "sentence"), "label")
QNLI: Final = Task(
    name="qnli",
    title="QNLI",
    folder="QNLI",
    hub_config="qnli",
    hub_text_columns=("question", "sentence"),
    labels=ENTAILMENT,
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.ACCURACY,),
    dev_majority=((2761 / 5463,),),
    citation="Rajpurkar et al. 2016 (SQuAD), recast by Wang et al. 2019 (GLUE), second release",
)

_train, _dev, _test = _three((2490, 277, 3000), _PAIR, "label")
RTE: Final = Task(
    name="rte",
    title="RTE",
    folder="RTE",
    hub_config="rte",
    hub_text_columns=_PAIR,
    labels=ENTAILMENT,
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.ACCURACY,),
    dev_majority=((146 / 277,),),
    citation="Dagan et al. 2006, Bar Haim et al. 2006, Giampiccolo et al. 2007, Bentivogli et al. 2009",
)

_train, _dev, _test = _three((635, 71, 146), _PAIR, "label")
WNLI: Final = Task(
    name="wnli",
    title="WNLI",
    folder="WNLI",
    hub_config="wnli",
    hub_text_columns=_PAIR,
    labels=BINARY,
    label_words=("not_entailment", "entailment"),
    train=_train,
    dev=_dev,
    test=_test,
    metrics=(Metric.ACCURACY,),
    dev_majority=((40 / 71,),),
    warning=(
        "WNLI's dev set is adversarial: its sentences stand in train under the opposite label, so a model that learns "
        "train by heart scores below the majority; a score near or below the majority says nothing about the model "
        "(GLUE FAQ 12)."
    ),
    citation="Levesque et al. 2011, The Winograd Schema Challenge, recast by Wang et al. 2019 (GLUE)",
)

AX: Final = Task(
    name="ax",
    title="AX",
    folder="diagnostic",
    hub_config="ax",
    hub_text_columns=("premise", "hypothesis"),
    labels=NLI,
    hub_labels=HUB_NLI,
    train=None,
    test=(
        Split(
            name="test",
            file="diagnostic.tsv",
            rows=1104,
            text_columns=_PAIR,
            label_column=None,
            hub_split="test",
        ),
    ),
    metrics=(Metric.MATTHEWS,),
    warning="AX is a test set without published labels: a model trained on MNLI predicts it.",
    citation="Wang et al. 2019, GLUE: the broad-coverage diagnostic set",
)

GLUE: Final = (COLA, SST2, MRPC, STSB, QQP, MNLI, QNLI, RTE, WNLI, AX)


def _split(name: str, rows: int) -> Split:
    return Split(
        name=name,
        file=f"{name}.tsv",
        rows=rows,
        text_columns=("premise", "hypothesis"),
        label_column="label",
        hub_split=name,
    )


DEMO: Final = Task(
    name="demo",
    title="demo",
    folder="demo_data",
    hub_config="",
    hub_text_columns=("premise", "hypothesis"),
    labels=("contradiction", "entailment", "neutral"),
    train=_split("train", 939),
    dev=(_split("dev", 180),),
    test=(_split("test", 180),),
    metrics=(Metric.ACCURACY,),
    dev_majority=((1 / 3,),),
    citation="written for isinglass: everyday and technical matters, each hypothesis written before its label was drawn",
)


def demo_data_dir() -> Path:
    """Return the directory whose folder `demo_data` holds the embedded files."""
    return Path(str(importlib.resources.files("isinglass.tasks")))
