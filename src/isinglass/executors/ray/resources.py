"""CPUs and GPUs of each run, and how many runs a cluster has room for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isinglass.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"

    def runs_by_gpus(self, gpus: float) -> float:
        """Return the number of runs that its GPUs have room for: infinity if a run needs none."""
        return math.floor(self.gpus / gpus + 1e-9) if gpus else math.inf

    def cpus_per_run(self, gpus: float) -> int:
        """Return the CPUs of each run if its GPUs decide the number of runs; all CPUs if a run needs no GPU."""
        runs = self.runs_by_gpus(gpus) if gpus else 1
        return max(1, int(self.cpus // runs))

    def runs(self, cpus: int, gpus: float) -> int:
        """Return the number of runs that it has room for."""
        return int(min(self.cpus // cpus, self.runs_by_gpus(gpus)))


@dataclass(frozen=True)
class Shares:
    """CPUs and GPUs of each run, and the number of runs that have room at the same time."""

    cpus: int
    gpus: float
    at_once: int

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU(s)" if self.gpus else ""
        return f"{self.at_once} run(s) at a time, each with {self.cpus} CPU(s){gpus}"


def share_nodes(resources: Sequence[Mapping[str, float]], cpus: int | None, gpus: float | None) -> Shares:
    """Divide the nodes of a cluster among runs.

    By default a run has one GPU if any node has GPUs, and its share of the CPUs of the smallest node that fits: the CPUs of
    a node are divided among the runs that its GPUs have room for. Without GPUs each node performs one run at a time.

    Args:
        resources: Ray's `CPU` and `GPU` of each node.
        cpus: CPUs of each run; None: as above.
        gpus: GPUs of each run, below 1 for a share of one; None: as above.

    Raises:
        ConfigError: no node has room for one run.
    """
    nodes = [Node(each.get("CPU", 0), each.get("GPU", 0)) for each in resources]
    if gpus is None:
        gpus = float(any(node.gpus >= 1 for node in nodes))
    _check_gpus(gpus)
    fitting = _fitting_nodes(nodes, cpus or 1, gpus)
    cpus = cpus or min(node.cpus_per_run(gpus) for node in fitting)
    return Shares(cpus, gpus, at_once=sum(node.runs(cpus, gpus) for node in fitting))


def _check_gpus(gpus: float) -> None:
    is_share = 0 <= gpus <= 1
    if not is_share and not (gpus > 1 and float(gpus).is_integer()):
        raise ConfigError(f"--gpus-per-run is {gpus:g}; a share of one, or a whole number, was expected.")


def _fitting_nodes(nodes: Sequence[Node], cpus: int, gpus: float) -> list[Node]:
    """Return the nodes with room for at least one run, and refuse a run that none has room for."""
    fitting = [node for node in nodes if node.runs(cpus, gpus) >= 1]
    if not fitting:
        existing = ", ".join(map(str, nodes)) or "nothing"
        raise ConfigError(
            f"A run needs {cpus} CPU(s) and {gpus:g} GPU(s), which no node has (there are: {existing}): give it less "
            f"by --cpus-per-run or --gpus-per-run."
        )
    return fitting
