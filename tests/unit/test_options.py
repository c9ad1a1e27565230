"""The options of the commands: those of the first release exist, settings get theirs from their declaration, help fits."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from isinglass.cli import app
from isinglass.config import SETTINGS
from isinglass.config.setting import PANELS

# as `isinglass COMMAND --help` listed them before the settings were declared in one place
TABLES = (
    "--train-file --validation-file --text-column --text-column2 --label-column --delimiter --encoding --kind "
    "--label-delimiter --positive-label --drop-incomplete --dataset --subset"
)
CLUSTER = "--on --cpus-per-run --gpus-per-run --storage --checkpoint-every"
OPTIONS = {
    "train": f"task --data-dir {TABLES} --test-file --validation-fraction --model --output-dir --overwrite --resume "
    "--checkpoint-every --keep-checkpoints --recipe --epochs --batch-size --learning-rate --max-length --long-texts "
    "--max-train-examples --head-start --class-weights --label-smoothing --layer-decay --freeze-embeddings --freeze-layers "
    "--keep-best --early-stopping --best-metric --seed --precision --backend --compile --xla --runs --log-to --check-only "
    "--config --set --json --baselines --no-baselines --start-from --tune-threshold",
    "evaluate": "run_dir --data-dir --test-file --text-column --text-column2 --label-column --delimiter --encoding --task "
    "--split --precision --json",
    "predict": "run_dir --input --output --data-dir --task --split --precision --overwrite --text-column --text-column2 "
    "--delimiter --encoding --keep-columns --top",
    "bench": f"--preset --tasks --data-dir {TABLES} --test-file --output --models --backends --precisions --xla --no-xla "
    f"--compile --no-compile --seeds --recipe --start-from --predict-test --keep-models --published --dry-run --set "
    f"{CLUSTER}",
    "report": "directory --published",
    "submit": "directory --output --partial --backend --precision --model --seed --check --overwrite",
    "tune": f"task --trials --output --search --data-dir {TABLES} --model --backend --precision --config --set {CLUSTER}",
    "export": "run_dir --to --output --int8 --data-dir --task --overwrite",
    "push": "run_dir repo --private --revision --license",
    "tasks": "",
}
FLAGS_WITHOUT_VALUE = (
    "--drop-incomplete --overwrite --resume --freeze-embeddings --keep-best --compile --xla --check-only --json "
    "--baselines --no-baselines --tune-threshold"
)
MOST_USED = (
    "--train-file --validation-file --dataset --max-length --model --recipe --epochs --batch-size --learning-rate "
    "--precision --output-dir"
)


def options_of(command: str) -> dict:
    """Return spelling -> parameter. An argument is listed by its name."""
    parameters = get_command(app).commands[command].params
    return {spelling: one for one in parameters for spelling in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_is_still_there(command: str) -> None:
    assert options_of(command).keys() == {*OPTIONS[command].split()}


def test_commands_are_those_of_the_first_release() -> None:
    assert get_command(app).commands.keys() == OPTIONS.keys()


def test_flags_take_no_value_and_files_may_be_repeated() -> None:
    options = {spelling: one for spelling, one in options_of("train").items() if spelling.startswith("--")}
    flags = {spelling for spelling, one in options.items() if one.is_flag}
    repeated = {spelling for spelling, one in options.items() if one.multiple}
    assert flags == {*FLAGS_WITHOUT_VALUE.split()}
    assert repeated == {"--train-file", "--validation-file", "--test-file", "--set"}


def test_a_setting_that_names_a_panel_has_an_option_there() -> None:
    """A setting is declared once, and its option must need no other code."""
    options = options_of("train")
    for setting in SETTINGS.values():
        assert (setting.flag in options) == (setting.panel is not None), setting.name
        if setting.panel:
            assert options[setting.flag].rich_help_panel == setting.panel
            assert setting.meaning in options[setting.flag].help


def help_of(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = CliRunner().invoke(app, [command, "--help"], terminal_width=columns)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("command", ["train", "bench", "tune", "submit"])
def test_help_fits_the_width_and_cuts_no_option(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is too narrow breaks `--validation-fraction` in two or ends it in an ellipsis."""
    lines = help_of(command, columns, monkeypatch)
    assert max(map(len, lines)) <= min(columns, 120)
    assert "…" not in "".join(lines)
    assert {*re.findall(r"--[a-z0-9-]+", "\n".join(lines))} >= {one for one in OPTIONS[command].split() if "--" in one}


def test_the_ten_options_that_everybody_needs_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = help_of("train", 80, monkeypatch)
    titles = [match[1] for line in lines if (match := re.match("╭─ (.*?) ─", line))]
    assert titles == ["Arguments", *PANELS, "Options"]
    first = lines.index(next(line for line in lines if line.startswith("╭─ Most used")))
    last = lines.index(next(line for line in lines if line.startswith("╭─ Data")))
    shown = re.findall(r"│ (--[a-z-]+)", "\n".join(lines[first:last]))
    assert shown == MOST_USED.split()
