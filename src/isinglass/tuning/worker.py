"""The worker of a search: trains one trial. See `isinglass.executors.worker`."""

from pathlib import Path

from isinglass.errors import TrainingDivergedError
from isinglass.executors.messages import EpochScored, TrialFinished, TrialRequest
from isinglass.executors.worker import Send, serve, train_requested
from isinglass.training.observers import Observer, RunState
from isinglass.tuning.data import tuning_data


class ScoreMessages(Observer):
    """Sends the scores of a trial after each epoch, and keeps them."""

    def __init__(self, send: Send) -> None:
        self.scores: tuple[float, ...] = ()
        self._send = send

    def on_evaluate(self, state: RunState) -> None:
        """Send the scores so far."""
        self.scores = state.epoch_scores
        self._send(EpochScored(scores=self.scores))


def perform_trial(request: TrialRequest, directory: Path, send: Send) -> TrialFinished:  # noqa: ARG001  # it writes nothing
    """Train one trial. A loss that diverges is an outcome like others."""
    config = request.run.resolve()
    data, _ = tuning_data(config)
    messages = ScoreMessages(send)
    error = None
    try:
        train_requested(request, config, data, send, [messages])
    except TrainingDivergedError as diverged:
        error = str(diverged)
    return TrialFinished(scores=messages.scores, error=error)


if __name__ == "__main__":
    serve({TrialRequest: perform_trial})
