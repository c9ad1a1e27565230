"""Model families as data: how each one's checkpoint spells what all encoders share.

Canonical names follow BERT's checkpoints, without the `bert.` prefix; the head is `head.dense` and `head.output` in
every family. A family is one entry of FAMILIES; nothing else in the package asks for a model by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isinglass.errors import CheckpointError
from isinglass.names import brief, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Family:
    """What one architecture's `config.json` and weights are called.

    Attributes:
        model_type: `model_type` in `config.json`.
        architecture: the class that `transformers` loads a saved run with.
        prefix: what weights of the bare encoder begin with in a classifier's checkpoint; may be absent in others.
        config_keys: field of EncoderConfig -> (key in `config.json`, value if the key is absent).
        parameter_names: (canonical, checkpoint) spellings of each module; `{i}` is the layer.
        ignored: first parts of names (after the prefix, if they have it) that a classifier does not use.
        head_dropout_before_dense: whether the first token's vector is dropped out before `head.dense`.
        head_activation: between `head.dense` and `head.output`.
        attention_output_dropout: whether attention's output is dropped out before it joins the residual.
        positions_from_pad: position ids begin at `pad_token_id + 1` instead of 0.
        has_token_types: whether there is an embedding of token types.
    """

    model_type: str
    architecture: str
    prefix: str
    config_keys: Mapping[str, tuple[str, object]]
    parameter_names: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]
    head_dropout_before_dense: bool
    head_activation: str
    attention_output_dropout: bool = True
    positions_from_pad: bool = False
    has_token_types: bool = True


# Defaults are those of the families' configuration classes in `transformers` (what an absent key means there).
_BERT_KEYS: Final[Mapping[str, tuple[str, object]]] = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("hidden_size", 768),
    "num_hidden_layers": ("num_hidden_layers", 12),
    "num_attention_heads": ("num_attention_heads", 12),
    "intermediate_size": ("intermediate_size", 3072),
    "hidden_act": ("hidden_act", "gelu"),
    "hidden_dropout_prob": ("hidden_dropout_prob", 0.1),
    "attention_probs_dropout_prob": ("attention_probs_dropout_prob", 0.1),
    "classifier_dropout": ("classifier_dropout", None),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "max_position_embeddings": ("max_position_embeddings", 512),
    "type_vocab_size": ("type_vocab_size", 2),
    "pad_token_id": ("pad_token_id", 0),
    "initializer_range": ("initializer_range", 0.02),
}

_EMBEDDINGS: Final = (
    "embeddings.word_embeddings",
    "embeddings.position_embeddings",
    "embeddings.token_type_embeddings",
    "embeddings.LayerNorm",
)
_LAYER: Final = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)


def _bert_names(prefix: str, dense: str, output: str) -> tuple[tuple[str, str], ...]:
    """The names of an encoder laid out as BERT's, and of its head."""
    body = (*_EMBEDDINGS, *(f"encoder.layer.{{i}}.{name}" for name in _LAYER))
    return (*((name, f"{prefix}.{name}") for name in body), ("head.dense", dense), ("head.output", output))


BERT: Final = Family(
    model_type="bert",
    architecture="BertForSequenceClassification",
    prefix="bert",
    config_keys=_BERT_KEYS,
    parameter_names=_bert_names("bert", "bert.pooler.dense", "classifier"),
    ignored=("cls",),
    head_dropout_before_dense=False,
    head_activation="tanh",
)

ROBERTA: Final = Family(
    model_type="roberta",
    architecture="RobertaForSequenceClassification",
    prefix="roberta",
    config_keys={**_BERT_KEYS, "vocab_size": ("vocab_size", 50265), "pad_token_id": ("pad_token_id", 1)},
    parameter_names=_bert_names("roberta", "classifier.dense", "classifier.out_proj"),
    ignored=("lm_head", "pooler"),
    head_dropout_before_dense=True,
    head_activation="tanh",
    positions_from_pad=True,
)

ELECTRA: Final = Family(
    model_type="electra",
    architecture="ElectraForSequenceClassification",
    prefix="electra",
    config_keys={
        **_BERT_KEYS,
        "embedding_size": ("embedding_size", 128),
        "hidden_size": ("hidden_size", 256),
        "num_attention_heads": ("num_attention_heads", 4),
        "intermediate_size": ("intermediate_size", 1024),
    },
    parameter_names=(
        ("embeddings_project", "electra.embeddings_project"),
        *_bert_names("electra", "classifier.dense", "classifier.out_proj"),
    ),
    ignored=("discriminator_predictions", "generator_predictions", "generator_lm_head"),
    head_dropout_before_dense=True,
    head_activation="gelu",
)

DISTILBERT: Final = Family(
    model_type="distilbert",
    architecture="DistilBertForSequenceClassification",
    prefix="distilbert",
    config_keys={
        "vocab_size": ("vocab_size", 30522),
        "hidden_size": ("dim", 768),
        "num_hidden_layers": ("n_layers", 6),
        "num_attention_heads": ("n_heads", 12),
        "intermediate_size": ("hidden_dim", 3072),
        "hidden_act": ("activation", "gelu"),
        "hidden_dropout_prob": ("dropout", 0.1),
        "attention_probs_dropout_prob": ("attention_dropout", 0.1),
        "classifier_dropout": ("seq_classif_dropout", 0.2),
        "max_position_embeddings": ("max_position_embeddings", 512),
        "pad_token_id": ("pad_token_id", 0),
        "initializer_range": ("initializer_range", 0.02),
    },
    parameter_names=(
        ("embeddings.word_embeddings", "distilbert.embeddings.word_embeddings"),
        ("embeddings.position_embeddings", "distilbert.embeddings.position_embeddings"),
        ("embeddings.LayerNorm", "distilbert.embeddings.LayerNorm"),
        *(
            (f"encoder.layer.{{i}}.{canonical}", f"distilbert.transformer.layer.{{i}}.{name}")
            for canonical, name in zip(
                _LAYER,
                (
                    "attention.q_lin",
                    "attention.k_lin",
                    "attention.v_lin",
                    "attention.out_lin",
                    "sa_layer_norm",
                    "ffn.lin1",
                    "ffn.lin2",
                    "output_layer_norm",
                ),
                strict=True,
            )
        ),
        ("head.dense", "pre_classifier"),
        ("head.output", "classifier"),
    ),
    ignored=("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    head_dropout_before_dense=False,
    head_activation="relu",
    attention_output_dropout=False,
    has_token_types=False,
)

FAMILIES: Final = MappingProxyType({family.model_type: family for family in (BERT, ROBERTA, DISTILBERT, ELECTRA)})


def get_family(model_type: object, origin: str) -> Family:
    """The family of a `config.json`.

    Raises:
        CheckpointError: it is not served; the message lists those that are.
    """
    name = model_type if isinstance(model_type, str) else ""
    family = FAMILIES.get(name)
    if family is None:
        raise CheckpointError(
            f"{origin}: model_type is {brief(model_type)}{did_you_mean(name, FAMILIES)}; "
            f"the families served are {', '.join(FAMILIES)}."
        )
    return family
