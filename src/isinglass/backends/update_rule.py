"""How the optimizer treats each parameter, decided by its place in the blueprint and the settings."""

from dataclasses import dataclass

from isinglass.config import TrainConfig
from isinglass.models.blueprint import Parameter


@dataclass(frozen=True)
class UpdateRule:
    """How AdamW treats one parameter.

    Attributes:
        rate_factor: the learning rate is multiplied with it; 0: the parameter is frozen.
        decays: whether weight decay applies.
    """

    rate_factor: float
    decays: bool

    @staticmethod
    def of(parameter: Parameter, num_blocks: int, config: TrainConfig) -> "UpdateRule":
        """Return the rule for a parameter of an encoder with `num_blocks` blocks."""
        return UpdateRule(_rate_factor(parameter.depth, num_blocks, config), parameter.decays)


def _rate_factor(depth: int, num_blocks: int, config: TrainConfig) -> float:
    freezes_embeddings = config.freeze_embeddings or config.freeze_layers > 0
    if (depth == 0 and freezes_embeddings) or 0 < depth <= config.freeze_layers:
        return 0.0
    return float(config.layer_decay ** (num_blocks + 1 - depth))
