"""Settings: their order of precedence, and the values that are refused."""

import inspect
import json
from pathlib import Path

import pytest

from isinglass import TextClassifier, TextRegressor
from isinglass.config import RECIPES, SETTINGS, TrainConfig, as_dict, resolve
from isinglass.config.settings import DataSettings, OptimizerSettings
from isinglass.errors import ConfigError


def test_the_defaults_are_the_classic_recipe() -> None:
    """The recipe has batch size 32, 3 epochs (WNLI 5) and length 128.

    The learning rate is 2e-5, linear to 0. There is no warm-up and no weight decay, and gradients are clipped at 1.
    """
    config = resolve(task="mrpc")
    found = (config.batch_size, config.learning_rate, config.schedule, config.epochs, config.max_length)
    assert found == (32, 2e-5, "linear", 3, 128)
    assert (config.warmup_ratio, config.weight_decay, config.max_grad_norm, config.precision) == (0, 0, 1, "fp32")
    assert resolve(task="wnli").epochs == 5


def test_default_then_recipe_then_file_then_flag_then_set(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("learning_rate = 3e-5\nepochs = 7\nbatch_size = 8\nseed = 5\n")
    config = resolve(
        task="rte",
        recipe="small",
        config_file=file,
        flags={"epochs": 2, "batch_size": 16, "model": None},
        assignments=("batch_size=4", "dropout=none"),
    )
    assert (config.learning_rate, config.epochs, config.batch_size, config.seed) == (3e-5, 2, 4, 5)
    assert config.recipe == "small"
    assert resolve(task="rte", recipe="small").learning_rate == RECIPES["small"].values["learning_rate"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs=0", "epochs is 0; it must be at least 1"),
        ("epochs=two", "epochs is 'two'; a whole number was expected"),
        ("learning_rate=-1", "learning_rate is -1.0; it must be above 0"),
        ("learning_rate=nan", "learning_rate is nan"),
        ("dropout=1", "dropout is 1.0; it must be from 0 to below 1"),
        ("precision=fp8", "precision is 'fp8'; it must be one of fp32, tf32, bf16, fp16"),
        ("compile=maybe", "compile is 'maybe'; true or false was expected"),
        ("weight_decy=0.1", r"no setting 'weight_decy' \(did you mean 'weight_decay'\?\)"),
        ("weight_decay", "--set 'weight_decay': a setting and its value are expected"),
        ("recipe=smal", r"no recipe 'smal' \(did you mean 'small'\?\)"),
        ("seed=-1", "seed is -1"),
    ],
)
def test_a_wrong_setting_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(task="rte", assignments=(assignment,))


def test_a_config_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(task="rte", config_file=tmp_path / "none.toml")
    (tmp_path / "bad.json").write_text("[1, 2")
    with pytest.raises(ConfigError, match=r"bad\.json is not a"):
        resolve(task="rte", config_file=tmp_path / "bad.json")
    (tmp_path / "half.toml").write_text("epochs = 1.5")
    with pytest.raises(ConfigError, match=r"epochs is 1\.5; a whole number"):
        resolve(task="rte", config_file=tmp_path / "half.toml")


def test_compiling_does_not_go_with_the_flat_layout() -> None:
    with pytest.raises(ConfigError, match="fixed shapes"):
        TrainConfig(compile=True, layout="flat")
    assert TrainConfig(compile=True).uses_rows
    assert not TrainConfig().uses_rows


def test_the_switches_of_the_classic_tensorflow_example_count_where_no_flag_is_given() -> None:
    """USE_XLA and USE_AMP apply only to the tensorflow backend, and never override a flag."""
    switches = {"USE_XLA": "1", "USE_AMP": "True"}
    chosen = resolve(task="mrpc", flags={"backend": "tensorflow"}, environment=switches)
    assert (chosen.xla, chosen.precision) == (True, "amp")
    chosen = resolve(
        task="mrpc", flags={"backend": "tensorflow", "precision": "fp32"}, environment=switches | {"USE_XLA": "0"}
    )
    assert (chosen.xla, chosen.precision) == (False, "fp32")
    chosen = resolve(task="mrpc", flags={}, environment=switches)
    assert (chosen.backend, chosen.xla, chosen.precision) == ("torch", False, "fp32")
    with pytest.raises(ConfigError, match="USE_XLA is 'maybe'; 0 or 1"):
        resolve(task="mrpc", flags={"backend": "tensorflow"}, environment={"USE_XLA": "maybe"})


def test_each_compiler_is_asked_for_where_it_is() -> None:
    with pytest.raises(ConfigError, match="xla is not available in the backend torch: use --compile"):
        TrainConfig(xla=True)
    with pytest.raises(ConfigError, match="compile is torch's; for the backend tensorflow use --xla"):
        TrainConfig(compile=True, backend="tensorflow")
    with pytest.raises(ConfigError, match="the backend jax needs the fixed shapes"):
        TrainConfig(layout="flat", backend="jax")
    assert TrainConfig(backend="tensorflow").uses_rows


def test_amp_is_fp16_on_a_gpu_and_bf16_on_a_cpu() -> None:
    amp = TrainConfig(precision="amp")
    assert (amp.precision_on("gpu"), amp.precision_on("cpu")) == ("fp16", "bf16")
    assert TrainConfig(precision="fp16").precision_on("gpu") == "fp16"
    with pytest.raises(ConfigError, match="fp16 does not run on a CPU"):
        TrainConfig(precision="fp16").precision_on("cpu")


def test_tf32_is_for_gpus_in_pytorch() -> None:
    assert TrainConfig(precision="tf32").precision_on("gpu") == "tf32"
    with pytest.raises(ConfigError, match="on a CPU use --precision fp32 or bf16"):
        TrainConfig(precision="tf32").precision_on("cpu")
    with pytest.raises(ConfigError, match="tf32 is served by the backend torch"):
        TrainConfig(precision="tf32", backend="tensorflow")


def test_a_recipe_among_the_flags_is_the_runs_recipe() -> None:
    """The settings of a saved run are passed as flags again."""
    settings = resolve(task="rte", flags={"recipe": "small"})
    assert (settings.recipe, settings.learning_rate) == ("small", 2e-4)
    assert resolve(task="rte", flags=as_dict(settings)) == settings


# settings that the previous version saved for a run, with the values of its defaults
SAVED = {
    "task": "demo",
    "model": "demo",
    "data_dir": None,
    "train_file": [],
    "validation_file": [],
    "test_file": [],
    "dataset": None,
    "subset": None,
    "validation_fraction": 0.1,
    "split_seed": 42,
    "text_column": None,
    "text_column2": None,
    "label_column": None,
    "delimiter": None,
    "encoding": "utf-8",
    "kind": "auto",
    "label_delimiter": None,
    "positive_label": None,
    "drop_incomplete": False,
    "backend": "torch",
    "precision": "fp32",
    "compile": False,
    "xla": False,
    "layout": "auto",
    "recipe": "classic",
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 2e-05,
    "schedule": "linear",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-08,
    "max_grad_norm": 1.0,
    "dropout": None,
    "max_length": 128,
    "long_texts": "truncate",
    "window_overlap": None,
    "max_train_examples": None,
    "class_weights": None,
    "label_smoothing": 0.0,
    "layer_decay": 1.0,
    "freeze_embeddings": False,
    "freeze_layers": 0,
    "keep_best": False,
    "early_stopping": None,
    "best_metric": None,
    "tune_threshold": False,
    "baselines": None,
    "eval_tokens": 4096,
    "seed": 42,
    "chosen": [],
    "head_start": "random",
}


def test_settings_keep_their_names_and_defaults() -> None:
    """Saved runs, benches and config files refer to all settings by name."""
    assert as_dict(TrainConfig()) == SAVED


@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_config_file_may_hold_every_setting(suffix: str, tmp_path: Path) -> None:
    """The settings that a result saves must be a valid config file. TOML has no null."""
    known = {name: value for name, value in SAVED.items() if value is not None}
    lines = [f"{name} = {json.dumps(value)}" for name, value in known.items()]
    file = tmp_path / f"all{suffix}"
    file.write_text(json.dumps(SAVED) if suffix == ".json" else "\n".join(lines))
    assert as_dict(resolve(task="demo", config_file=file)) == SAVED


def test_every_setting_can_be_assigned() -> None:
    """`--set` converts a value to the declared type, and `none` to no value."""
    assignments = tuple(
        f"{name}={'none' if value is None else value}"
        for name, value in SAVED.items()
        if value != [] and not (value is None and SETTINGS[name].type is str)
    )
    assert as_dict(resolve(task="demo", assignments=assignments)) == SAVED


def test_every_setting_says_what_it_means() -> None:
    """The help, the reference and the estimators show the sentence below each field."""
    for setting in SETTINGS.values():
        assert setting.meaning.endswith("."), setting.name


def test_every_group_can_stand_alone_and_checks_its_rules() -> None:
    """A function that needs the optimizer's settings must not need the others."""
    assert OptimizerSettings(layer_decay=0.5).layer_decay == 0.5
    assert isinstance(TrainConfig(), OptimizerSettings)
    with pytest.raises(ConfigError, match="layer_decay is 2; it must be above 0, and at most 1"):
        OptimizerSettings(layer_decay=2)
    with pytest.raises(ConfigError, match="window_overlap is 128; it must be from 0 to below max_length"):
        DataSettings(window_overlap=128)


@pytest.mark.parametrize("estimator", [TextClassifier, TextRegressor])
def test_the_parameters_of_an_estimator_are_settings(estimator: type) -> None:
    """A misspelled or renamed parameter would be refused only when `fit` is called."""
    renamed = {"class_weight": "class_weights", "random_state": "seed"}
    for name, parameter in inspect.signature(estimator).parameters.items():
        if name == "verbose":
            continue
        setting = SETTINGS[renamed.get(name, name)]
        usual = "auto" if name == "recipe" else setting.default  # an estimator is for one's own data
        assert parameter.default in (None, usual), name
