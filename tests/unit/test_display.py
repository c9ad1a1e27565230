"""What a person sees while a run is trained."""

from dataclasses import replace

import pytest

from isinglass.cli.display import RunBars, show_result, spoken
from isinglass.training.observers import Progress
from tests.sample_bench import sample_result

BEGINNING = Progress(stage="train", epochs=2, done=10, total=100, loss=0.5, tokens_per_second=2000.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (8, "8 s"), (52, "50 s"), (57, "1 min"), (128, "2 min 10 s"), (3590, "1 h 0 min"), (3780, "1 h 3 min")],
)
def test_a_time_is_said_as_people_say_it(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_the_time_of_a_training_is_said_once_and_then_what_is_left(capsys) -> None:
    with RunBars() as bars:
        bars.show("", BEGINNING)
        bars.show("", replace(BEGINNING, done=20, seconds_left=128.0))
        bars.show("", replace(BEGINNING, done=60, seconds_left=64.0))
        bars.show("", replace(BEGINNING, done=100, epoch=1, seconds_left=0.0))
    assert capsys.readouterr().err.splitlines() == [
        "train 10/100, epoch 1/2, loss 0.500, 2,000 tokens/s",
        "The training takes about 2 min 10 s from here on (80 steps).",
        "train 20/100, epoch 1/2, loss 0.500, 2,000 tokens/s, 2 min 10 s left",
        "train 60/100, epoch 1/2, loss 0.500, 2,000 tokens/s, 1 min left",
        "train 100/100, epoch 2/2, loss 0.500, 2,000 tokens/s",
    ]


def test_a_short_training_is_not_announced(capsys) -> None:
    with RunBars() as bars:
        bars.show("", replace(BEGINNING, seconds_left=4.0))
    assert capsys.readouterr().err.splitlines() == ["train 10/100, epoch 1/2, loss 0.500, 2,000 tokens/s, 4 s left"]


def test_a_result_of_several_labels_names_its_threshold(capsys) -> None:
    result = sample_result("rte")
    show_result(replace(result, threshold=0.3), None, as_json=False)
    assert "An example has the labels whose probability is above 0.3." in capsys.readouterr().out
    show_result(result, None, as_json=False)
    assert "probability is above" not in capsys.readouterr().out
