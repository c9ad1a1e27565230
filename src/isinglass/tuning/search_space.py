"""The settings that a search draws for its trials."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from isinglass.config import TrainConfig
from isinglass.errors import ConfigError
from isinglass.names import brief, did_you_mean

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial

SETTINGS: Final = ("learning_rate", "epochs", "batch_size", "seed")  # that can be searched; every recipe has them
_NUMBERS: Final[Mapping[str, Callable[[str], float]]] = {"learning_rate": float, "epochs": int, "batch_size": int}


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The settings that are searched, and their values. None, or False for the seed: the setting stays as it is.

    Attributes:
        learning_rate: lowest and highest; drawn on a logarithmic scale.
        epochs: lowest and highest.
        batch_size: the values to choose from.
        seed: give each trial a seed of its own, so that no setting is judged by one lucky seed. It is not learned from.

    Raises:
        ConfigError: values are out of order or range, or nothing is searched.
    """

    learning_rate: tuple[float, float] | None = (1e-5, 5e-4)
    epochs: tuple[int, int] | None = (2, 5)
    batch_size: tuple[int, ...] | None = (16, 32, 64)
    seed: bool = True

    def __post_init__(self) -> None:
        for name, values in (("learning_rate", self.learning_rate), ("epochs", self.epochs)):
            _check(name, values, "a lower and a higher number", length=2)
        _check("batch_size", self.batch_size, "rising whole numbers")
        if self.learning_rate is None and self.epochs is None and self.batch_size is None:
            raise ConfigError("There is nothing to search but the seed: name learning_rate, epochs or batch_size.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the space of a text: names between commas, each with values if the default ones are not to be searched.

        Example: `learning_rate=1e-5:1e-4,batch_size=8:16:32,seed` leaves the epochs as they are.

        Raises:
            ConfigError: an unknown name, or values of the wrong kind.
        """
        default = cls()
        chosen: dict[str, Any] = dict.fromkeys(SETTINGS) | {"seed": False}
        for part in text.split(","):
            name, equals_sign, values = (piece.strip() for piece in part.partition("="))
            if name not in chosen:
                hint = did_you_mean(name, SETTINGS)
                raise ConfigError(f"{brief(name)} cannot be searched{hint}; {', '.join(SETTINGS)} can.")
            chosen[name] = _parse_values(name, values, part) if equals_sign else getattr(default, name)
        return cls(**chosen)

    def suggest(self, trial: "OptunaTrial", config: TrainConfig, position: int) -> TrainConfig:
        """Return the settings of the trial at a position of its search, counted from 0."""
        chosen: dict[str, Any] = {}
        if self.learning_rate:
            chosen["learning_rate"] = trial.suggest_float("learning_rate", *self.learning_rate, log=True)
        if self.epochs:
            chosen["epochs"] = trial.suggest_int("epochs", *self.epochs)
        if self.batch_size:
            chosen["batch_size"] = trial.suggest_categorical("batch_size", self.batch_size)
        if self.seed:
            chosen["seed"] = (config.seed + position) % 2**63
        return dataclasses.replace(config, **chosen)


def _check(name: str, values: Sequence[float] | None, expected: str, *, length: int | None = None) -> None:
    """Refuse values that do not rise from above 0, or are not `length` many."""
    if values is None:
        return
    is_rising = sorted({*values}) == [*values]
    has_length = len(values) == (length or len(values)) and len(values) > 0
    if not (is_rising and has_length and values[0] > 0):
        raise ConfigError(f"The search space of {name} is {brief(values)}; {expected} above 0 were expected.")
    if not math.isfinite(values[-1]):
        raise ConfigError(f"The search space of {name} is {brief(values)}; finite numbers were expected.")


def _parse_values(name: str, values: str, part: str) -> tuple[float, ...]:
    if name not in _NUMBERS:
        raise ConfigError(f"The search space {brief(part)}: no values were expected.")
    try:
        return tuple(_NUMBERS[name](value) for value in values.split(":"))
    except ValueError:
        raise ConfigError(f"The search space {brief(part)}: numbers with `:` between them were expected.") from None
