"""Training, read from top to bottom: prepare, run the steps, evaluate."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from isinglass.backends.process_group import ProcessGroup, SingleProcess, in_turn, largest
from isinglass.backends.registry import check_installed, create_backend
from isinglass.config import TrainConfig
from isinglass.data import open_data
from isinglass.data.source import Source
from isinglass.errors import StorageError
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.models.vocabulary import restore_vocabulary, trim_vocabulary, used_vocabulary
from isinglass.results import RunResult
from isinglass.tasks import Task
from isinglass.training.best_epoch import BestEpoch
from isinglass.training.checkpoints import Checkpoints, TrainingState
from isinglass.training.interruption import Interrupted, Interruption
from isinglass.training.loop import Loop
from isinglass.training.observers import (
    EpochEnd,
    Evaluate,
    Observer,
    Observers,
    PredictionStep,
    Save,
    StepRecord,
    TrainBegin,
    TrainEnd,
)
from isinglass.training.packer import Packer
from isinglass.training.prediction import predict
from isinglass.training.preparation import PreparedRun, PreparedSplit, prepare_run
from isinglass.training.result import Figures, make_result
from isinglass.training.resuming import check_same_checkpoint, check_same_run, run_identity
from isinglass.training.scoring import Scored, score

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A trained and scored run.

    Attributes:
        model: what the run began with, its labels named as the task names them.
        weights: the trained weights.
        steps: the training steps.
        scored: the splits that the result has scores of.
    """

    task: Task
    result: RunResult
    model: Checkpoint
    weights: Weights
    steps: list[StepRecord]
    scored: list[Scored]

    def trained_model(self) -> Checkpoint:
        """Return the model with its trained weights."""
        return replace(self.model, weights=self.weights)


def train(
    config: TrainConfig,
    observers: Observers = (),
    *,
    data: Source | None = None,
    first_weights: str | None = None,
    checkpoints: Checkpoints | None = None,
    interruption: Interruption | None = None,
    group: ProcessGroup | None = None,
) -> TrainedRun:
    """Fine-tune on a task's training set. Score its dev sets, and the user's own test set if its labels are known.

    Args:
        observers: are told how the run goes on; see `isinglass.training.observers`.
        data: the task and its examples; None: what `config` names.
        first_weights: the model to begin with, if it is not `config.model` itself but one fine-tuned from it before.
        checkpoints: where checkpoints are written while training, and found to resume from; None: nowhere.
        interruption: tells that the process was asked to end; then a checkpoint is written, and Interrupted raised.
        group: the processes that share each step, each of which calls this function; None: this process alone. Process 0
            writes the checkpoints, where all processes can read them.

    Raises:
        IsinglassError: of the kind that says what is wrong with the settings, the data or the model.
        Interrupted: the process was asked to end.
    """
    check_installed(config.backend)
    group = group or SingleProcess()
    interruption = interruption or Interruption()
    with in_turn(group):
        prepared = prepare_run(config, data or open_data(config), first_weights)
    trainer = Trainer(config, prepared, observers, checkpoints, interruption, group)
    trainer.resume()
    trainer.begin()
    with trainer.saves_when_interrupted(), interruption.deferred():
        trainer.run_steps()
        trainer.evaluate()
    return trainer.finish()


class Trainer:
    """One run while it is trained: its model on a device, its steps, its best epoch, its checkpoints."""

    def __init__(
        self,
        config: TrainConfig,
        prepared: PreparedRun,
        observers: Observers,
        checkpoints: Checkpoints | None,
        interruption: Interruption,
        group: ProcessGroup,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._observers = observers if group.rank == 0 else ()
        self._checkpoints = checkpoints
        self._interruption = interruption
        self._group = group
        texts = [split.tokens for split in prepared.splits]
        self._vocabulary = used_vocabulary(config, prepared.model.blueprint, texts)
        self._backend = create_backend(config, trim_vocabulary(prepared.model, self._vocabulary), prepared.objective, group)
        self._packer = Packer.of(config, prepared.model, self._vocabulary)
        self._loop = Loop(config, self._backend, self._packer, prepared.train, group, self._observers)
        self._best = BestEpoch(prepared.metric, config.early_stopping)
        self._saved_at = time.monotonic()  # when the newest checkpoint was written
        self._scored: list[Scored] = []
        self._evaluation_seconds = 0.0
        shared = group.size > 1
        self._identity = run_identity(config, prepared, self._vocabulary) if checkpoints is not None or shared else {}
        if shared:
            check_same_run(group, self._identity, prepared)

    def resume(self) -> None:
        """Continue from the newest checkpoint, if that is asked for and there is one."""
        if self._checkpoints is None:
            return
        state = self._checkpoints.load(self._identity)
        check_same_checkpoint(self._group, None if state is None else state.step)
        if state is not None:
            self._loop.restore(state)
            self._best.restore(state.epoch_scores, state.arrays)

    def begin(self) -> None:
        """Tell the observers what is trained on."""
        event = TrainBegin(
            config=self._config,
            task=self._prepared.task,
            splits={split.name: split for split in self._prepared.splits},
            step=self._loop.step,
            total_steps=self._loop.total_steps,
        )
        for observer in self._observers:
            observer.on_train_begin(event)

    def run_steps(self) -> None:
        """Do the remaining steps, with evaluations and checkpoints between them, and load the best epoch's weights."""
        self._saved_at = time.monotonic()
        self._evaluate_epoch()  # if the checkpoint was written between the last step of an epoch and its evaluation
        steps = iter(()) if self._best.is_over else self._loop.run()
        for _ in steps:
            if self._loop.is_at_epoch_end:
                self._end_epoch()
            self._save_or_stop()
            if self._best.is_over:
                break
        if self._best.weights:
            self._backend.load(self._best.weights)

    def evaluate(self) -> None:
        """Predict all splits that the result has scores of."""
        started = time.perf_counter()
        self._scored = self._predict(self._prepared.scored)
        self._evaluation_seconds = time.perf_counter() - started

    def finish(self) -> TrainedRun:
        """Return the run, its result included."""
        loop, prepared = self._loop, self._prepared
        figures = Figures(
            examples={split.name: len(split) for split in prepared.splits},
            tokens=[prepared.train.tokens],
            evaluation_seconds=self._evaluation_seconds,
            epoch_seconds=loop.clock.seconds,
            trained_tokens=loop.tokens,
            epoch_scores=self._best.plain_scores(),
        )
        notes = [*prepared.notes, *self._best.notes(self._config.epochs), *loop.closing_notes()]
        result = make_result(self._config, prepared.task, self._scored, self._backend, figures, notes, self._group)
        for observer in self._observers:
            observer.on_train_end(TrainEnd(result=result))
        return TrainedRun(
            task=prepared.task,
            result=result,
            model=prepared.model,
            weights=restore_vocabulary(self._backend.weights(), prepared.model, self._vocabulary),
            steps=loop.records(),
            scored=self._scored,
        )

    @contextmanager
    def saves_when_interrupted(self) -> Iterator[None]:
        """Write a checkpoint if the block raises Interrupted, and name it in the message."""
        try:
            yield
        except Interrupted as interrupted:
            if self._checkpoints is None or self._group.rank > 0:
                raise
            path = self._save(self._checkpoints)
            message = f"stopped after step {self._loop.step} of {self._loop.total_steps}, saved in {path}"
            raise Interrupted(interrupted.number, message) from None

    def _predict(self, splits: Sequence[PreparedSplit]) -> list[Scored]:
        observers = self._observers
        if self._group.size == 1:  # several processes stop together, between two steps
            observers = (*observers, _StopOnSignal(self._interruption))
        scored = []
        for split in splits:
            outputs = predict(self._backend, self._packer, split.tokens, split.name, observers, self._group)
            scored.append(Scored(split=split, outputs=outputs, label_order=self._prepared.label_order))
        return scored

    def _end_epoch(self) -> None:
        step, epochs = self._loop.step, self._config.epochs
        event = EpochEnd(epoch=step // self._loop.steps_per_epoch - 1, epochs=epochs, step=step)
        for observer in self._observers:
            observer.on_epoch_end(event)
        self._evaluate_epoch()

    def _evaluate_epoch(self) -> None:
        """Score the dev sets after an epoch, where the best one is picked and this one has no score yet."""
        epoch = len(self._best.scores)
        if not self._config.picks_best or self._loop.step != (epoch + 1) * self._loop.steps_per_epoch:
            return
        metric = self._prepared.metric
        scores = [score(self._prepared.task, scored)[0][metric] for scored in self._predict(self._prepared.dev)]
        self._best.add(sum(scores) / len(scores), self._backend.weights())
        event = Evaluate(
            epoch=epoch,
            epochs=self._config.epochs,
            step=self._loop.step,
            metric=metric,
            epoch_scores=tuple(self._best.scores),
        )
        for observer in self._observers:
            observer.on_evaluate(event)

    def _save_or_stop(self) -> None:
        """Write a checkpoint if it is time for one, and end the run if that is asked for.

        All processes decide alike: by the longest time since a checkpoint, and by any signal.
        """
        seconds = int(time.monotonic() - self._saved_at)
        signal_number, seconds = largest(self._group, self._interruption.number, seconds)
        checkpoints, steps = self._checkpoints, self._loop.steps_per_epoch
        if checkpoints is not None and checkpoints.every.is_due(
            step=self._loop.step, steps_per_epoch=steps, seconds=seconds
        ):
            try:
                with self._loop.clock.paused():
                    if self._group.rank == 0:
                        self._save(checkpoints)
            except StorageError as error:
                logger.warning(f"{error} Training goes on.")
            self._saved_at = time.monotonic()
        if signal_number:
            raise Interrupted(signal_number)
        if self._group.size == 1:  # several processes learn of a signal that came meanwhile after the next step
            self._interruption.check()

    def _save(self, checkpoints: Checkpoints) -> Path:
        path = checkpoints.save(self._state(), self._identity)
        event = Save(step=self._loop.step, path=path)
        for observer in self._observers:
            observer.on_save(event)
        return path

    def _state(self) -> TrainingState:
        state = self._loop.state()
        arrays = {**state.arrays, **self._best.arrays()}
        return replace(state, epoch_scores=self._best.plain_scores(), arrays=arrays)


class _StopOnSignal(Observer):
    """Ends a prediction when the process was asked to end."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def on_prediction_step(self, event: PredictionStep) -> None:  # noqa: ARG002
        self._interruption.check()
