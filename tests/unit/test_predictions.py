"""Predictions as columns, and files of them in each format."""

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isinglass.data.examples import Examples
from isinglass.errors import ConfigError, DataError, OutputExistsError
from isinglass.runs.predictions import (
    check_predictions,
    described_by_source,
    prediction_columns,
    predictions_file,
    write_predictions,
)
from isinglass.tasks import TASKS
from isinglass.tasks.custom import custom_task
from tests.unit.test_custom_data import refused

LABELS = ("bad", "fair", "good")
LOGITS = np.log(np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], np.float32))
TEXTS = ['He said "no"\tand\r\nleft', "half \udcff"]


def task(kind: str):
    names = dict(name="mine", text_columns=["text"], label_column="label", splits=["train"])
    return custom_task(kind=kind, labels=None if kind == "regression" else LABELS, **names)


def plain(predictions) -> dict:
    return {name: [*values] for name, values in predictions.items()}


def written(path: Path, predictions, **options: Any) -> None:
    with predictions_file(path, overwrite=False, **options) as writer:
        for columns in predictions:
            writer.write(columns)


# ---- columns -----------------------------------------------------------


def test_labels_with_all_probabilities_or_the_likeliest() -> None:
    columns = prediction_columns(LOGITS, LABELS, task("classification"), first=5, described={"id": [1, 2]})
    assert [*columns] == ["index", "prediction", "id", "probability:bad", "probability:fair", "probability:good"]
    assert plain(columns)["index"] == [5, 6] and columns["prediction"] == ["fair", "bad"]
    np.testing.assert_allclose(columns["probability:good"], [0.3, 0.2], rtol=1e-6)
    columns = prediction_columns(LOGITS, LABELS, task("classification"), top=2)
    assert [*columns] == ["index", "prediction", "top1", "probability1", "top2", "probability2"]
    assert (columns["top1"], columns["top2"]) == (["fair", "bad"], ["good", "good"])
    np.testing.assert_allclose(columns["probability2"], [0.3, 0.2], rtol=1e-6)
    assert [*prediction_columns(LOGITS, LABELS, task("classification"), top=9)][-2:] == ["top3", "probability3"]


def test_several_labels_and_numbers() -> None:
    columns = prediction_columns(np.array([[1, -1, 2], [-1, -1, -1]], np.float32), LABELS, task("multilabel"), top=1)
    assert columns["prediction"] == [("bad", "good"), ()] and columns["top1"] == ["good", "bad"]
    columns = prediction_columns(np.array([[1.25]], np.float32), None, task("regression"), described={"row": [2]})
    assert plain(columns) == {"index": [0], "prediction": [1.25], "row": [2]}


def test_the_source_of_examples() -> None:
    examples = Examples(texts=(["a", "b"], ["c", "d"]), labels=["x", "y"], origin="two files", line_numbers=np.array([2, 9]))
    expected = {"label": ["x", "y"], "row": [2, 9], "text": ["a", "b"], "text2": ["c", "d"]}
    assert described_by_source(examples) == expected
    several = Examples(texts=(["a"],), labels=None, origin="files", line_numbers=[3], origins=["b.csv"])
    assert described_by_source(several) == {"file": ["b.csv"], "row": [3], "text": ["a"]}


# ---- files -------------------------------------------------------------


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t"), ("txt", "\t"), ("TSV", "\t")])
def test_text_files_quote_what_needs_it(ending: str, delimiter: str, tmp_path: Path) -> None:
    kept = {"id": [1.0, None], "text": TEXTS, "tags": [["x"], {"a": "é"}], "at": [date(2024, 1, 2), True]}
    pieces = [
        {"index": range(2), "prediction": [("bad", "good"), ()], **kept, "probability:bad": np.array([0.25, 1 / 3])}
    ] * 2
    written(tmp_path / f"a.{ending}", pieces)
    with open(tmp_path / f"a.{ending}", newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file, delimiter=delimiter)]
    assert rows[0] == ["index", "prediction", "id", "text", "tags", "at", "probability:bad"]
    assert rows[1] == ["0", "bad|good", "1", TEXTS[0], '["x"]', "2024-01-02", "0.25"]
    assert rows[2] == ["1", "", "", "half \\udcff", '{"a": "é"}', "true", "0.333333"]
    assert rows[3:] == rows[1:3], "one header"


def test_json_lines(tmp_path: Path) -> None:
    kept = {
        "id": [np.float32(0.1), float("nan")],
        "text": TEXTS,
        "at": [date(2024, 1, 2), None],
        "n": [np.float64(1 / 3), 2],
    }
    pieces = [{"index": range(2), "prediction": [("bad", "good"), ()], **kept, "probability:bad": np.array([1 / 3, np.nan])}]
    written(tmp_path / "a.jsonl", pieces)
    first, second = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first == {
        "index": 0, "prediction": ["bad", "good"], "id": 0.1, "text": TEXTS[0], "at": "2024-01-02", "n": 1 / 3,
        "probability:bad": 0.333333,
    }  # fmt: skip
    assert (second["prediction"], second["id"], second["text"], second["probability:bad"]) == ([], None, TEXTS[1], None)


def test_parquet_has_types(tmp_path: Path) -> None:
    kept = {"id": [1, None], "at": [None, None], "small": [np.float32(0.1), None], "tags": [["x"], []]}
    pieces = [{"index": range(2), "prediction": ["bad", "good"], **kept, "probability:bad": np.array([0.25, 1 / 3])}] * 2
    written(tmp_path / "a.parquet", pieces, types={"at": pa.date32(), "small": pa.float32()})
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 4
    assert {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types)} == {
        "index": "int64", "prediction": "string", "id": "int64", "at": "date32[day]", "small": "float",
        "tags": "list<element: string>", "probability:bad": "double",
    }  # fmt: skip
    assert table["probability:bad"].to_pylist()[:2] == [0.25, 1 / 3]


def test_parquet_has_lists_of_labels_though_the_first_are_empty(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", [{"prediction": [(), ()]}, {"prediction": [("bad", "good"), ()]}])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["prediction"].to_pylist() == [[], [], ["bad", "good"], []]


def test_parquet_refuses_a_column_of_several_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    message = refused(lambda: written(path, [{"index": range(1), "id": [1]}, {"index": range(1), "id": ["x"]}]), DataError)
    assert "the values of the column 'id' are of several types" in message and "write .jsonl or .csv" in message
    assert not [*tmp_path.iterdir()], "all of the file or nothing"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    columns = prediction_columns(LOGITS, LABELS, task("classification"))

    def interrupted() -> None:
        with predictions_file(path, overwrite=False) as writer:
            writer.write(columns)
            raise DataError("The second row is damaged.")

    assert refused(interrupted) == "The second row is damaged." and not [*path.parent.iterdir()]
    written(path, [columns])
    assert "exists: choose another --output" in refused(lambda: written(path, [columns]), OutputExistsError)
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize("name", ["a.json", "a.xlsx", "a.csv.gz", "a.v2"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    message = refused(lambda: check_predictions(tmp_path / name, overwrite=False), ConfigError)
    assert "no format of predictions: choose one of .csv, .tsv, .jsonl, .parquet (.txt, or no ending, is TSV)" in message


def test_a_run_writes_tab_separated_values(tmp_path: Path) -> None:
    write_predictions(prediction_columns(LOGITS, LABELS, TASKS["mnli"]), tmp_path / "a")
    assert (tmp_path / "a").read_text().splitlines()[1] == "0\tfair\t0.2\t0.5\t0.3"
