"""What a search draws the settings of its trials from."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from isinglass.config import TrainConfig
from isinglass.errors import (
    ConfigError,
)
from isinglass.names import brief, did_you_mean

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial

SETTINGS: Final = ("learning_rate", "epochs", "batch_size", "seed")  # what can be searched, and what a recipe always holds


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is searched, and where; None, or for the seed False: as in the config.

    Attributes:
        learning_rate: lowest and highest, drawn on a logarithmic scale.
        epochs: fewest and most.
        batch_size: one of these.
        seed: each trial has one of its own, so that no setting is judged by one lucky seed. It is not learned from.
    """

    learning_rate: tuple[float, float] | None = (1e-5, 5e-4)
    epochs: tuple[int, int] | None = (2, 5)
    batch_size: tuple[int, ...] | None = (16, 32, 64)
    seed: bool = True

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "batch_size"):
            values = getattr(self, name)
            if values is None:
                continue
            is_range = name != "batch_size"
            if not values or (is_range and len(values) != 2) or sorted({*values}) != [*values] or not values[0] > 0:
                expected = "a lower and a higher number" if is_range else "rising whole numbers"
                raise ConfigError(f"The search space of {name} is {brief(values)}; {expected} above 0 were expected.")
            if not math.isfinite(values[-1]):
                raise ConfigError(f"The search space of {name} is {brief(values)}; finite numbers were expected.")
        if self.learning_rate is None and self.epochs is None and self.batch_size is None:
            raise ConfigError("There is nothing to search but the seed: name learning_rate, epochs or batch_size.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Names with commas between them, each with values of its own where the usual ones are not to be searched.

        Example: `learning_rate=1e-5:1e-4,batch_size=8:16:32,seed` leaves the epochs as they are.

        Raises:
            ConfigError: an unknown name, or values of the wrong kind.
        """
        usual = cls()
        chosen: dict[str, Any] = dict.fromkeys(SETTINGS, None) | {"seed": False}
        for part in text.split(","):
            name, sign, values = (one.strip() for one in part.partition("="))
            if name not in chosen:
                hint = did_you_mean(name, SETTINGS)
                raise ConfigError(f"{brief(name)} cannot be searched{hint}; {', '.join(SETTINGS)} can.")
            if not sign:
                chosen[name] = getattr(usual, name)
                continue
            try:
                if name == "seed":
                    raise ValueError
                chosen[name] = tuple((float if name == "learning_rate" else int)(value) for value in values.split(":"))
            except ValueError:
                wanted = "no values" if name == "seed" else "numbers with `:` between them"
                raise ConfigError(f"The search space {brief(part)}: {wanted} were expected.") from None
        return cls(**chosen)

    def suggest(self, trial: "OptunaTrial", config: TrainConfig, number: int) -> TrainConfig:
        """The settings of one trial, the `number`-th of its study from 0."""
        chosen: dict[str, Any] = {}
        if self.learning_rate:
            chosen["learning_rate"] = trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        if self.epochs:
            chosen["epochs"] = trial.suggest_int("epochs", *self.epochs)
        if self.batch_size:
            chosen["batch_size"] = trial.suggest_categorical("batch_size", self.batch_size)
        if self.seed:
            chosen["seed"] = (config.seed + number) % 2**63
        return dataclasses.replace(config, **chosen)
