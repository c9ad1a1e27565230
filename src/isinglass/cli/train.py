"""`isinglass train`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isinglass.cli.display import progress, show_repetitions, show_result
from isinglass.cli.exits import announce, errors_in_one_line, how_to_resume, processes
from isinglass.cli.options import Assignments, ConfigFile, Json, TaskArgument, resolve_options, with_options
from isinglass.config import SETTINGS, Panel, TrainConfig
from isinglass.errors import ConfigError
from isinglass.names import printable

if TYPE_CHECKING:
    from isinglass.backends.process_group import ProcessGroup
    from isinglass.results import RunResult
    from isinglass.runs.perform import Saving
    from isinglass.training.observers import Observer


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where a run goes, and what is kept of it."""

    output_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the run.  [default: a new directory in runs/]",
            rich_help_panel=Panel.MOST_USED,
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --output-dir.", rich_help_panel=Panel.OUTPUT)
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume the run in --output-dir from its last checkpoint.", rich_help_panel=Panel.OUTPUT
        ),
    ] = False
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="INTERVAL",
            help="Time between checkpoints: 200steps, 1epoch, 5min, or never.",
            rich_help_panel=Panel.OUTPUT,
        ),
    ] = "10min"
    keep_checkpoints: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of newest checkpoints to keep.", rich_help_panel=Panel.OUTPUT)
    ] = 2
    runs: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of runs; each uses the next seed.", rich_help_panel=Panel.OUTPUT),
    ] = 1
    log_to: Annotated[
        Literal["tensorboard"] | None,
        typer.Option(help="Write scalars to tensorboard/RUN, beside the run.", rich_help_panel=Panel.OUTPUT),
    ] = None

    def saving(self) -> "Saving":
        """Return how the run is saved.

        Raises:
            ConfigError: options that exclude or need one another.
        """
        from isinglass.runs.perform import Saving

        saving = Saving(
            resume=self.resume,
            overwrite=self.overwrite,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        if self.resume and self.output_dir is None:
            raise ConfigError("--resume needs --output-dir, the directory of the run to go on with.")
        return saving


@with_options(*(name for name, setting in SETTINGS.items() if setting.panel), panels=True)
def train(
    task: TaskArgument = None,
    *,
    settings: dict[str, Any],
    output: OutputOptions,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Read, tokenize and check the data, report what was found, and stop.")
    ] = False,
    config: ConfigFile = None,
    assignments: Assignments = None,
    json_output: Json = False,
) -> None:
    """Fine-tune a model on a task, score its dev set(s), and write a run directory."""
    with errors_in_one_line(shared=True):
        from isinglass.backends.process_group import number_of_processes
        from isinglass.backends.registry import check_installed
        from isinglass.cli.own_data import show_data_facts
        from isinglass.runs.directory import new_run_name, repetitions

        base = resolve_options(task, settings, config, assignments)
        saving = output.saving()
        if check_only:
            show_data_facts(base)
            return
        if output.output_dir is None and number_of_processes(base.backend) > 1:
            raise ConfigError("Processes that share a run need --output-dir, so that all know where its checkpoints lie.")
        check_installed(base.backend)
        planned = repetitions(base, output.output_dir or Path("runs") / new_run_name(base), output.runs)
        with processes(base.backend) as group:
            results = _perform_all(planned, saving, group, log_to=output.log_to, as_json=json_output)
            if output.runs > 1 and group.rank == 0 and not json_output:
                show_repetitions(results)


def _perform_all(
    planned: "Sequence[tuple[TrainConfig, Path]]",
    saving: "Saving",
    group: "ProcessGroup",
    *,
    log_to: str | None,
    as_json: bool,
) -> "list[RunResult]":
    """Perform one run after another, and show the result of each as soon as it is known."""
    from isinglass.runs.perform import RunNotWrittenError, perform
    from isinglass.training.interruption import Interruption

    leads = group.rank == 0
    if leads:
        for _, directory in planned:
            saving.check(directory, group)
    results = []
    with Interruption(announce if leads else lambda _: None, repeated=group.has_launcher) as interruption:
        for config, directory in planned:
            try:
                with _observers(log_to, directory, leads=leads) as observers, how_to_resume(directory):
                    run = perform(config, directory, observers, saving=saving, interruption=interruption, group=group)
            except RunNotWrittenError as error:
                show_result(error.result, None, as_json=as_json)  # the scores at least are not lost
                raise
            results.append(run.result)
            if not leads:
                continue
            if run.trained is None:
                print(printable(f"{directory} is finished already; this is its result."), file=sys.stderr)
            show_result(run.result, directory, as_json=as_json)
    return results


@contextmanager
def _observers(log_to: str | None, directory: Path, *, leads: bool) -> "Iterator[list[Observer]]":
    """Yield what shows and logs a run. Only the process that leads has any, because only its observers are called."""
    from isinglass.cli.own_data import OwnDataFacts
    from isinglass.runs.tensorboard import TensorBoardLog

    if not leads:
        yield []
        return
    with progress() as bar:
        if log_to is None:
            yield [bar, OwnDataFacts()]
            return
        with TensorBoardLog(directory.parent / "tensorboard" / directory.name) as log:
            yield [bar, OwnDataFacts(), log]
