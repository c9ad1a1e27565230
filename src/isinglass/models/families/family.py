"""What a model family is: how its `config.json` is read, and what its weights are called in files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from isinglass.errors import CheckpointError
from isinglass.models.blueprint import Blueprint, Module, Parameter
from isinglass.models.files import Weights
from isinglass.names import brief

MAX_SIZE: Final = 2**31 - 1  # token ids are int32
MAX_BLOCKS: Final = 1000  # twenty times as many as the deepest encoders have

# An activation as checkpoints spell it -> what it computes. The tanh form is the same under three names.
ACTIVATIONS: Final[Mapping[str, str]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def _computed(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError("unknown")
    return ACTIVATIONS[name]


# Values of a `config.json`. The description ends the message about any other value.
def _whole_number(low: int, high: int) -> Any:
    return Field(ge=low, le=high, description=f"a whole number from {low} to {high} was expected")


Size = Annotated[int, _whole_number(1, MAX_SIZE)]
TokenId = Annotated[int | None, _whole_number(0, MAX_SIZE)]
NumBlocks = Annotated[int, _whole_number(1, MAX_BLOCKS)]
Rate = Annotated[float, Field(ge=0, lt=1, description="a number from 0 to 1 was expected")]
OptionalRate = Annotated[float | None, Field(ge=0, lt=1, description="a number from 0 to 1 was expected")]
Activation = Annotated[str, AfterValidator(_computed), Field(description=f"served are {', '.join(ACTIVATIONS)}")]
Unset = Annotated[Literal[False] | None, Field(description="only encoders with learned positions are served")]


class ConfigJson(BaseModel, ABC):
    """What a family reads of its `config.json`. A field's default is what an absent key means in `transformers`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    position_embedding_type: Annotated[Literal["absolute"], Field(description="only 'absolute' is served")] = "absolute"
    is_decoder: Unset = False
    add_cross_attention: Unset = False
    sinusoidal_pos_embds: Unset = False

    @abstractmethod
    def blueprint(self) -> Blueprint:
        """Return the encoder and its head."""


@dataclass(frozen=True, kw_only=True)
class FileArray:
    """One array of a weights file: a parameter, or several one after another along the first axis."""

    name: str
    parameters: tuple[Parameter, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        rows = sum(parameter.shape[0] for parameter in self.parameters)
        return rows, *self.parameters[0].shape[1:]

    def split(self, array: NDArray[Any]) -> Weights:
        """Return the parameters in the array, by canonical name, as views."""
        ends = np.cumsum([parameter.shape[0] for parameter in self.parameters])
        pieces = np.split(array, ends[:-1])
        return {parameter.name: piece for parameter, piece in zip(self.parameters, pieces, strict=True)}

    def join(self, weights: Weights) -> NDArray[Any]:
        """Return the array of these parameters, the inverse of `split`."""
        if len(self.parameters) == 1:
            return np.ascontiguousarray(weights[self.parameters[0].name])
        return np.concatenate([weights[parameter.name] for parameter in self.parameters])


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture: its `config.json` and its weights files.

    Attributes:
        model_type: `model_type` in `config.json`.
        architecture: the class that `transformers` loads a saved run with.
        prefix: what names of a bare encoder's weights begin with in a classifier's file; absent in other files.
        names: canonical name of a module, or the beginning of several, -> its spelling in files. `{i}` stands for the
            number of a block. Modules of the same spelling are one array in files, in the order of the blueprint.
        ignored: first parts of names, behind the prefix, that a classifier does not use: heads of pretraining.
        config: what is read of a `config.json`.
    """

    model_type: str
    architecture: str
    prefix: str
    names: Mapping[str, str]
    ignored: tuple[str, ...]
    config: type[ConfigJson]

    def blueprint(self, config_json: Mapping[str, Any], origin: str) -> Blueprint:
        """Return the model that a `config.json` describes; keys that are no fields of `config` are passed over.

        Args:
            origin: the file, for messages.

        Raises:
            CheckpointError: a value is of another type, out of range, does not fit the others, or asks for what is not
                served.
        """
        try:
            blueprint = self.config.model_validate(dict(config_json)).blueprint()
        except ValidationError as error:
            key = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
            described = {field.alias or name: field.description for name, field in self.config.model_fields.items()}
            raise CheckpointError(f"{origin}: {key} is {brief(config_json[key])}; {described[key]}.") from None
        heads, pad, V = blueprint.num_attention_heads, blueprint.embeddings.pad_token_id, blueprint.embeddings.vocab_size
        if blueprint.hidden_size % heads:
            raise CheckpointError(f"{origin}: hidden_size {blueprint.hidden_size} is not a multiple of the {heads} heads.")
        if pad >= V:
            raise CheckpointError(f"{origin}: pad_token_id {pad} does not fit vocab_size {V}.")
        if blueprint.max_length < 1:
            raise CheckpointError(f"{origin}: pad_token_id {pad} does not fit max_position_embeddings.")
        return blueprint

    def arrays(self, blueprint: Blueprint, num_outputs: int) -> list[FileArray]:
        """Return the arrays of a classifier's file, head included."""
        found: dict[str, list[Parameter]] = {}
        for module in blueprint.modules(num_outputs):
            spelling = self._spelling(module)
            for parameter in module.parameters:
                found.setdefault(parameter.name.replace(module.name, spelling), []).append(parameter)
        return [FileArray(name=name, parameters=tuple(parameters)) for name, parameters in found.items()]

    def _spelling(self, module: Module) -> str:
        """Return a module's name in files, by the longest beginning of its canonical name that `names` has."""
        number = str(module.depth - 1)
        parts = ["{i}" if part == number else part for part in module.name.split(".")]
        for length in range(len(parts), 0, -1):
            beginning = ".".join(parts[:length])
            if beginning in self.names:
                spelling = ".".join([self.names[beginning], *parts[length:]])
                return spelling.replace("{i}", number)
        raise AssertionError(f"{self.model_type} has no spelling for {module.name}")
