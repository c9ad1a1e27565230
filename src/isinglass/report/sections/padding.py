"""Padding that was not computed."""

from isinglass.names import printable, short_name
from isinglass.report import plots
from isinglass.report.own_tasks import title_of
from isinglass.report.runs import Bench
from isinglass.report.sections.parts import Plot, Section
from isinglass.results import RunResult
from isinglass.tables import Table


def padding(bench: Bench) -> Section:
    """Return how long the training examples are, and the padding that was not computed."""
    found, rows = [], []
    for name, runs in bench.tasks.items():
        kinds: dict[tuple[str, int, tuple[int, ...]], RunResult] = {}  # what was tokenized alike is shown once
        for one in (run.result for run in runs):
            if sum(one.train_lengths):
                kinds.setdefault((one.model, one.config["max_length"], tuple(one.train_lengths)), one)
        for i, one in enumerate(kinds.values()):
            title = title_of(name) if len(kinds) == 1 else f"{title_of(name)}, {short_name(one.model)}"
            longest = int(one.config["max_length"])
            svg = plots.length_histogram(f"lengths-{name}-{i}", printable(title), one.train_lengths, longest)
            examples, tokens = sum(one.train_lengths), sum(n * count for n, count in enumerate(one.train_lengths))
            padded, cut = examples * longest, one.truncated_share
            caption = (
                f"Padded to {longest}, {examples:,} training examples are {padded:,} tokens an epoch; {tokens:,} of them "
                f"are text, and {1 - tokens / padded:.0%} need not be computed. {cut:.1%} of the examples are cut."
            )
            found.append(Plot(svg, caption))
            shares = (f"{100 * (1 - tokens / padded):.1f}", f"{100 * cut:.1f}")
            mean = f"{tokens / examples:.1f}"
            rows.append((title_of(name), short_name(one.model), f"{examples:,}", mean, str(longest), *shares))
    table = Table(
        title="Padding in figures",
        columns=("task", "model", "examples", "mean length", "max_length", "padding not computed (%)", "examples cut (%)"),
        rows=tuple(rows),
    )
    return Section(
        key="padding",
        title="Padding that was not computed",
        lead="Above, how many training examples have each length. Below, to scale: at each position, the examples that "
        "still have text there, and those that padding would have filled up.",
        plots=found,
        folded=[table] if rows else [],
    )
