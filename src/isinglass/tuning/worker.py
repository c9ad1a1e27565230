"""One trial in a process of its own: `python -m isinglass.tuning.worker`."""

from typing import Any

from isinglass.errors import (
    TrainingDivergedError,
)
from isinglass.executors.worker import Answers, TrainingRequest, serve
from isinglass.training.observers import Observer, ProgressObserver, RunState
from isinglass.tuning.data import tuning_data


class _TellScores(Observer):
    """Tells the scores after each epoch as they come, and keeps them."""

    def __init__(self, answers: Answers) -> None:
        self.scores: list[float] = []
        self._answers = answers

    def on_evaluate(self, state: RunState) -> None:
        self.scores = [*state.epoch_scores]
        self._answers.send(scores=self.scores)


def _perform_trial(values: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """Train once; the scores after each epoch are told as they come, and in the end."""
    request = TrainingRequest(**values)
    config = request.located()
    data, _ = tuning_data(config)
    scores = _TellScores(answers)
    error = None
    try:
        request.train(config, data, [ProgressObserver(answers.progress), scores])
    except TrainingDivergedError as diverged:
        error = str(diverged)
    return {"trial": {"scores": scores.scores, "error": error}}


if __name__ == "__main__":
    serve({"trial": _perform_trial})
