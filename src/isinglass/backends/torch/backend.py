"""The PyTorch backend: a model, its optimizer, and the engine of the device, behind the protocol of all backends."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from isinglass.backends.process_group import ProcessGroup
from isinglass.backends.protocol import Objective, UpdateRule
from isinglass.backends.torch.batch import MicroBatch, MicroBatchGradient, StagedBatch
from isinglass.backends.torch.cpu.engine import CpuEngine
from isinglass.backends.torch.engine import Engine
from isinglass.backends.torch.gpu.engine import GpuEngine
from isinglass.backends.torch.loss import Loss
from isinglass.backends.torch.model import Classifier
from isinglass.backends.torch.process_group import TorchProcessGroup
from isinglass.backends.torch.word_gradient import WordGradient
from isinglass.config import TrainConfig
from isinglass.models.checkpoint import Checkpoint, Weights
from isinglass.packing import PackedBatch


def create(config: TrainConfig, checkpoint: Checkpoint, objective: Objective, group: ProcessGroup) -> "TorchBackend":
    """Return the backend on this process's GPU if there is one, else on the CPU."""
    model = Classifier(checkpoint.blueprint.with_dropout(config.dropout), objective.num_outputs)
    model.load(checkpoint.weights, config.seed)
    engine: Engine
    if torch.cuda.is_available():
        engine = GpuEngine(model, config, torch.device("cuda", torch.cuda.current_device()))
    else:
        engine = CpuEngine(model, config)
    return TorchBackend(config, model, engine, objective, group if isinstance(group, TorchProcessGroup) else None)


class TorchBackend:
    """See `backends.protocol.Backend`."""

    def __init__(
        self,
        config: TrainConfig,
        model: Classifier,
        engine: Engine,
        objective: Objective,
        group: TorchProcessGroup | None,
    ) -> None:
        self.device, self.precision, self.notes = engine.device_name, engine.precision, engine.notes
        self.compile_seconds = 0.0
        self._model = model
        self._engine = engine
        self._seed = config.seed
        self._loss = Loss(objective, engine.device)
        self._losses: list[Tensor] = []  # of the steps since `take_losses`
        self._word_gradient = WordGradient(model.word, model.blueprint.pad_token_id)
        rules = ((variable, UpdateRule.of(held[0], len(model.layers), config)) for variable, held in model.variables())
        self._optimizer = engine.create_optimizer(rules, config)
        self._group = group
        if group is not None:
            engine.join(group)  # after the optimizer, which freezes parameters

    @property
    def parallel_batches(self) -> int:
        """See the protocol."""
        return self._engine.parallel_batches

    @parallel_batches.setter
    def parallel_batches(self, number: int) -> None:
        self._engine.parallel_batches = number

    @property
    def compilations(self) -> int:
        """See the protocol."""
        return self._engine.compilations

    def train_step(self, batches: Sequence[PackedBatch], *, step: int, learning_rate: float, share: float = 1.0) -> None:
        """See the protocol."""
        examples = sum(batch.num_examples for batch in batches)
        if self._group is not None:
            share *= self._group.size  # the group takes the mean of the gradients
        parts = [
            MicroBatch(batch, step, part, share * batch.num_examples / examples, part == len(batches) - 1)
            for part, batch in enumerate(batches)
        ]
        self._optimizer.set_learning_rate(learning_rate)
        with self._engine.memory_for(examples):
            starts_program, started = self._engine.starts_program(batches), time.perf_counter()
            loss = self._engine.train(parts, self)
            if starts_program:
                self.synchronize()
                self.compile_seconds += time.perf_counter() - started
        self._losses.append(loss)

    def differentiate(self, batch: StagedBatch, part: MicroBatch) -> MicroBatchGradient:
        """See `torch.engine.StepPasses`."""
        assert batch.labels is not None
        word = self._model.word
        embeddings = word.detach()[batch.input_ids].requires_grad_(word.requires_grad)
        with self._engine.averaging(is_last=part.is_last), self._engine.products():
            logits = self._engine.training_logits(batch, embeddings)
            loss = self._loss(logits, batch.labels) * part.weight
            self._optimizer.scaled(loss).backward()
        return MicroBatchGradient(part, batch, loss.detach(), embeddings.grad)

    def update(self, gradients: Iterable[MicroBatchGradient]) -> Tensor:
        """See `torch.engine.StepPasses`."""
        step_loss = torch.zeros((), device=self._engine.device)
        parts = []
        try:
            for gradient in gradients:
                self._word_gradient.add(gradient)
                step_loss += gradient.loss
                parts.append(gradient.part)
            if self._group is not None:
                self._word_gradient.average(self._group, [part.batch for part in parts])
                self._group.average(step_loss)
            self._optimizer.step()
        finally:
            self._clear_gradients()
        return step_loss

    def take_losses(self) -> list[float]:
        """See the protocol."""
        losses, self._losses = self._losses, []
        return torch.stack(losses).tolist() if losses else []

    def predict(self, batches: Sequence[PackedBatch]) -> list[Float32[np.ndarray, "S outputs"]]:
        """See the protocol."""
        with self._engine.memory_for(sum(batch.num_examples for batch in batches)):
            return self._engine.predict(batches)

    def _clear_gradients(self) -> None:
        for parameter in self._model.parameters():
            if parameter is not self._model.word:
                parameter.grad = None
        self._word_gradient.clear()

    def weights(self) -> Weights:
        """See the protocol."""
        return self._model.weights()

    def load(self, weights: Weights) -> None:
        """See the protocol."""
        self._model.load(weights, self._seed)

    def state(self) -> dict[str, NDArray[Any]]:
        """See the protocol."""
        weights = {f"weights.{name}": p.detach().cpu().numpy() for name, p in self._model.named_parameters()}
        return weights | self._optimizer.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See the protocol."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(torch.from_numpy(state[f"weights.{name}"]))
        self._optimizer.restore(state)
        self._engine.reset()

    def synchronize(self) -> None:
        """See the protocol."""
        self._engine.synchronize()

    def peak_memory_bytes(self) -> int:
        """See the protocol."""
        return self._engine.peak_memory_bytes()
