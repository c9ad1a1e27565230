"""An encoder as a value: what it can express, what derives from it, and the refusal of features that a backend lacks."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import isinglass
from isinglass.backends.protocol import Backend
from isinglass.errors import CheckpointError
from isinglass.export.onnx import export_onnx
from isinglass.models.blueprint import (
    FEATURES,
    Block,
    Blueprint,
    Bucketed,
    Disentangled,
    Dropout,
    Embeddings,
    Head,
    Norm,
    Parameter,
    Rotary,
)
from isinglass.models.checkpoint import Checkpoint, load_checkpoint, load_weights, with_head
from isinglass.models.families import FAMILIES
from isinglass.models.families.family import ConfigJson, Family
from tests.backends.variants import VARIANTS, backend_for
from tests.tiny import save_tiny

H, F, V = 24, 40, 50


def parameters_of(blueprint: Blueprint, num_outputs: int) -> list[Parameter]:
    return [parameter for module in blueprint.modules(num_outputs) for parameter in module.parameters]


def modern_bert() -> Blueprint:
    """Return a small ModernBERT, which has hardly anything in common with BERT."""
    norm = Norm(epsilon=1e-5, bias=False)

    def block(index: int) -> Block:
        is_global = index % 3 == 0
        return Block(
            num_heads=3,
            num_key_heads=3,
            attention_bias=False,
            positions=Rotary(theta=160_000 if is_global else 10_000),
            window=None if is_global else 64,
            inner_size=F,
            activation="gelu",
            gated=True,
            inner_bias=False,
            output_bias=False,
            norm=norm,
            norm_first=True,
            norm_before_attention=index > 0,
        )

    return Blueprint(
        hidden_size=H,
        max_length=8192,
        embeddings=Embeddings(vocab_size=V, size=H, pad_token_id=0, first_position=None, token_types=0, norm=norm),
        blocks=tuple(block(i) for i in range(4)),
        final_norm=norm,
        pooling="mean",
        head=Head(activation="gelu", bias=False, norm=norm),
        dropout=Dropout(
            embeddings=0.0, attention_weights=0.0, attention_output=0.0, feed_forward=0.0, head_input=None, head=0.0
        ),
        initializer_range=0.02,
    )


class ModernBertConfig(ConfigJson):
    """Nothing is read."""

    def blueprint(self) -> Blueprint:
        return modern_bert()


MODERN_BERT = Family(
    model_type="modernbert",
    architecture="ModernBertForSequenceClassification",
    prefix="model",
    names={
        "embeddings.word_embeddings": "model.embeddings.tok_embeddings",
        "embeddings.LayerNorm": "model.embeddings.norm",
        "encoder.layer.{i}.attention.output.LayerNorm": "model.layers.{i}.attn_norm",
        **{f"encoder.layer.{{i}}.attention.self.{role}": "model.layers.{i}.attn.Wqkv" for role in ("query", "key", "value")},
        "encoder.layer.{i}.attention.output.dense": "model.layers.{i}.attn.Wo",
        "encoder.layer.{i}.output.LayerNorm": "model.layers.{i}.mlp_norm",
        "encoder.layer.{i}.intermediate.dense": "model.layers.{i}.mlp.Wi",
        "encoder.layer.{i}.intermediate.gate": "model.layers.{i}.mlp.Wi",
        "encoder.layer.{i}.output.dense": "model.layers.{i}.mlp.Wo",
        "encoder.final_norm": "model.final_norm",
        "head.dense": "head.dense",
        "head.LayerNorm": "head.norm",
        "head.output": "classifier",
    },
    ignored=("decoder",),
    config=ModernBertConfig,
)


def test_the_arrays_of_a_modern_bert_are_those_of_transformers() -> None:
    """Query, key and value are one array, the gate follows the activated half, and no norm precedes the first attention."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    config = ModernBertConfig(
        vocab_size=V, hidden_size=H, intermediate_size=F, num_hidden_layers=4, num_attention_heads=3, num_labels=3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    theirs = {name: tuple(p.shape) for name, p in ModernBertForSequenceClassification(config).named_parameters()}
    assert {array.name: array.shape for array in MODERN_BERT.arrays(modern_bert(), 3)} == theirs


def test_the_arrays_of_a_gte_are_those_of_transformers() -> None:
    """Norms follow the sublayers, positions are rotary, and only the last product of the feed-forward layer has a bias."""
    from transformers import GteConfig, GteForSequenceClassification

    sizes = dict(vocab_size=V, hidden_size=H, num_hidden_layers=2, num_attention_heads=3, intermediate_size=F)
    theirs = GteForSequenceClassification(GteConfig(**sizes, num_labels=3)).named_parameters()
    bert = FAMILIES["bert"].blueprint(sizes | {"type_vocab_size": 1}, "here")
    block = replace(
        bert.blocks[0],
        positions=Rotary(theta=160_000),
        inner_size=F,
        activation="gelu",
        gated=True,
        inner_bias=False,
    )
    embeddings = replace(bert.embeddings, first_position=None)
    ours = parameters_of(replace(bert, embeddings=embeddings, blocks=(block, block)), 3)
    assert Counter(tuple(p.shape) for _, p in theirs) == Counter(parameter.shape for parameter in ours)


def test_arrays_that_files_fuse_are_split_and_joined_again(tmp_path: Path) -> None:
    """A loaded model must have every parameter under its canonical name, and must be saved as it was."""
    from safetensors.numpy import save_file

    blueprint, rng = modern_bert(), np.random.default_rng(0)
    arrays = MODERN_BERT.arrays(blueprint, 3)
    stored = {array.name: rng.random(array.shape, np.float32) for array in arrays}
    save_file(stored | {"decoder.bias": np.zeros(V, np.float32)}, tmp_path / "x.safetensors")

    weights = load_weights(tmp_path / "x.safetensors", MODERN_BERT, blueprint)
    expected = {parameter.name: parameter.shape for parameter in parameters_of(blueprint, 3)}
    assert {name: array.shape for name, array in weights.items()} == expected
    qkv = stored["model.layers.1.attn.Wqkv.weight"]
    np.testing.assert_array_equal(weights["encoder.layer.1.attention.self.key.weight"], qkv[H : 2 * H])
    for array in arrays:
        np.testing.assert_array_equal(array.join(weights), stored[array.name])


def test_parameters_have_their_role_and_depth() -> None:
    """Layer-wise learning rates, freezing and weight decay depend on role and depth."""
    parameters = {parameter.name: parameter for parameter in parameters_of(modern_bert(), 3)}
    assert "encoder.layer.0.attention.output.LayerNorm.weight" not in parameters
    assert not [name for name in parameters if name.endswith("bias") and name != "head.output.bias"]
    facts = {
        "embeddings.word_embeddings.weight": ("table", 0, True),
        "embeddings.LayerNorm.weight": ("norm", 0, False),
        "encoder.layer.0.intermediate.gate.weight": ("matrix", 1, True),
        "encoder.layer.3.output.LayerNorm.weight": ("norm", 4, False),
        "encoder.final_norm.weight": ("norm", 4, False),
        "head.LayerNorm.weight": ("norm", 5, False),
        "head.output.bias": ("bias", 5, False),
    }
    for name, (role, depth, decays) in facts.items():
        assert (parameters[name].role, parameters[name].depth, parameters[name].decays) == (role, depth, decays), name


@pytest.mark.parametrize("model_type", FAMILIES)
def test_vectors_do_not_decay_and_matrices_do(model_type: str) -> None:
    for parameter in parameters_of(FAMILIES[model_type].blueprint({}, "here"), 3):
        assert parameter.decays == (len(parameter.shape) > 1), parameter.name


def test_blocks_that_share_their_weights_have_them_once() -> None:
    """ALBERT has twelve blocks with the parameters of one."""
    bert = FAMILIES["bert"].blueprint({"hidden_size": H, "num_attention_heads": 3}, "here")
    albert = replace(bert, shared_blocks=True, embeddings=replace(bert.embeddings, size=8))
    names = [parameter.name for parameter in parameters_of(albert, 2)]
    assert sum("attention.self.query.weight" in name for name in names) == 1
    assert [*albert.block_modules(7)] == [*albert.block_modules(0)]
    assert "embeddings_project.weight" in names and len(albert.blocks) == 12


def test_relative_positions_have_tables_that_all_blocks_share() -> None:
    """Covers MPNet's relative biases and DeBERTa's embeddings of distances."""
    bert = FAMILIES["bert"].blueprint({"hidden_size": H, "num_attention_heads": 3}, "here")

    def added(positions: Bucketed | Disentangled) -> dict[str, tuple[int, ...]]:
        blocks = tuple(replace(b, positions=positions) for b in bert.blocks)
        known = {parameter.name for parameter in parameters_of(bert, 2)}
        parameters = parameters_of(replace(bert, blocks=blocks), 2)
        return {parameter.name: parameter.shape for parameter in parameters if parameter.name not in known}

    assert added(Bucketed(buckets=32, max_distance=128)) == {"encoder.relative_attention_bias.weight": (32, 3)}
    assert added(Disentangled(buckets=256, max_distance=512, norm=Norm(epsilon=1e-7))) == {
        "encoder.rel_embeddings.weight": (512, H),
        "encoder.LayerNorm.weight": (H,),
        "encoder.LayerNorm.bias": (H,),
    }
    own = added(Disentangled(buckets=4, max_distance=8, has_products=True))
    assert own["encoder.layer.11.attention.self.pos_query_proj.weight"] == (H, H)


def test_a_dropout_rate_replaces_rates_and_adds_none() -> None:
    """DistilBERT applies no dropout to the output of attention, whatever the rate."""
    rates = FAMILIES["distilbert"].blueprint({}, "here").with_dropout(0.5).dropout
    assert (rates.embeddings, rates.attention_weights, rates.attention_output) == (0.5, 0.5, None)
    assert (rates.feed_forward, rates.head_input, rates.head) == (0.5, None, 0.5)


def test_a_new_head_has_its_norm_and_its_biases_as_the_blueprint_says() -> None:
    drawn = with_head({"encoder.final_norm.weight": np.ones(H, np.float32)}, modern_bert(), 3, seed=1)
    del drawn["encoder.final_norm.weight"]
    assert {name: array.shape for name, array in drawn.items()} == {
        "head.dense.weight": (H, H),
        "head.LayerNorm.weight": (H,),
        "head.output.weight": (3, H),
        "head.output.bias": (3,),
    }
    assert set(drawn["head.LayerNorm.weight"]) == {1} and set(drawn["head.output.bias"]) == {0}


@pytest.fixture
def unserved(tmp_path: Path) -> Checkpoint:
    blueprint = modern_bert()
    weights = {parameter.name: np.zeros(parameter.shape, np.float32) for parameter in parameters_of(blueprint, 3)}
    sound = load_checkpoint(save_tiny(tmp_path / "model", "bert"))
    return replace(sound, blueprint=blueprint, weights=weights, label_names=("a", "b", "c"))


@pytest.mark.parametrize("engine", [*VARIANTS, "onnx"])
def test_an_encoder_that_an_engine_does_not_compute_is_refused_in_one_sentence(
    engine: str, unserved: Checkpoint, tmp_path: Path
) -> None:
    """Guards against a wrong result of a backend that ignores a feature which it does not know."""

    def build() -> Path | Backend:
        return export_onnx(unserved, tmp_path) if engine == "onnx" else backend_for(engine, unserved)

    with pytest.raises(CheckpointError) as caught:
        build()
    message = str(caught.value)
    for feature in modern_bert().features():
        assert feature in message
    assert "rotary positions, attention within a window and mean pooling, which the " in message
    assert "\n" not in message


def test_every_feature_can_be_told_from_a_blueprint() -> None:
    """Guards against a feature that no blueprint reports, so that it is never refused."""
    block = modern_bert().blocks[0]
    positions = (Bucketed(buckets=2, max_distance=4), Disentangled(buckets=2, max_distance=4))
    others = [replace(block, positions=each, num_key_heads=1) for each in positions]
    everything = replace(
        modern_bert(),
        blocks=(*modern_bert().blocks, *others),
        shared_blocks=True,
        embeddings=replace(modern_bert().embeddings, norm=None),
        final_norm=Norm(kind="rms", epsilon=1e-5, bias=False),
    )
    assert everything.features() == [*FEATURES]


def test_no_other_file_spells_a_parameter() -> None:
    """Names and shapes of parameters must be only in the blueprint, and their spellings in files only in the families."""
    root = Path(isinglass.__file__).parent
    parts = r"embeddings_project|(word|position|token_type)_embeddings|encoder\.layer|attention\.self|head\.(dense|output)"
    spelled = re.compile(rf"""["'][^"'\n]*({parts}|LayerNorm\.weight|output\.dense)""")
    known = {"models/blueprint.py", "models/checkpoint.py"}
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if name not in known and not name.startswith("models/families/"):
            assert not spelled.search(path.read_text()), name
