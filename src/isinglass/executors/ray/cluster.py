"""Starting or joining a Ray, and how its CPUs and GPUs are shared among runs."""

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from isinglass.config.settings import ClusterSettings
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.executors.ray.executor import RayExecutor, first_line
from isinglass.executors.training import is_url, open_file_system
from isinglass.training.checkpoints import Interval

logger = logging.getLogger(__name__)

LOCAL: Final = "local"
CONNECT_SECONDS: Final = 5.0
MOST_JOINS: Final = 3  # attempts at a cluster that answers but does not accept a client
EXPECTED: Final = "`ray` (a local one, or the one that RAY_ADDRESS names) or ray://HOST:PORT (Ray's client) was expected"


@contextmanager
def connected(options: ClusterSettings, directory: Path) -> Iterator[RayExecutor]:
    """Start or join a Ray, and yield its executor. At the end of the block all that is pending is ended.

    Args:
        directory: where files of the runs are put and, by default, their checkpoints.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: the address, the resources or the storage cannot be used.
    """
    assert options.on is not None
    address = options.on
    if address == "ray":
        address = os.environ.get("RAY_ADDRESS") or LOCAL
    elif not re.fullmatch(r"ray://[^\s/]+:\d{1,5}", address):
        raise ConfigError(f"--on is {address!r}; {EXPECTED}.")
    storage = _storage(options, address, directory)
    ray = _join(address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        shares = share_nodes(nodes, options.cpus_per_run, options.gpus_per_run)
        cluster = "a local one" if address == LOCAL else f"{address}, {len(nodes)} node(s)"
        executor = RayExecutor(
            ray,
            directory,
            cpus=shares.cpus,
            gpus=shares.gpus,
            at_once=shares.at_once,
            storage=storage,
            checkpoint_every=options.checkpoint_every,
            summary=f"Ray: {cluster}; {shares}.",
        )
        try:
            yield executor
        finally:
            with suppress(Exception):  # the connection itself may be lost
                executor.end()
    finally:
        ray.shutdown()


def _storage(options: ClusterSettings, address: str, directory: Path) -> str | None:
    """Return the directory or URL of all checkpoints; None: none are written."""
    Interval.parse(options.checkpoint_every)
    storage = options.storage
    if storage is None and address != LOCAL and options.checkpoint_every != "never":
        raise ConfigError(
            "A run whose node is lost continues from checkpoints that every node sees: name a shared directory, or a URL, "
            "with --storage, or give them up with --checkpoint-every never."
        )
    if storage is None:
        storage = str((directory / "checkpoints").absolute())
    elif is_url(storage):
        open_file_system(storage)  # a mistake is found here
    else:
        storage = str(Path(storage).absolute())
    return None if options.checkpoint_every == "never" else storage


def _join(address: str) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("--on ray needs Ray, which is not installed: `pip install 'isinglass[ray]'`.") from None
    _check_reachable(address)
    for attempt in range(1, MOST_JOINS + 1):
        try:
            _initialize(ray, address)
            break
        except Exception as error:  # noqa: BLE001  # Ray raises RuntimeError, ValueError, gRPC's errors ...
            ray.shutdown()
            reason = f"Ray at {address} could not be joined ({first_line(error)})"
            if not isinstance(error, ConnectionAbortedError) or attempt == MOST_JOINS:
                raise ConfigError(f"{reason}; {EXPECTED}.") from None
            # a busy head node takes longer to start a client's process than Ray waits
            logger.warning(f"{reason}: trying again.")
    return ray


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    parts = re.fullmatch(r"(?:ray://)?\[?([^\s/]+?)\]?:(\d+)", address)
    if parts is None:
        return
    try:
        socket.create_connection((parts[1], int(parts[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"There is no Ray at {address} ({error}); {EXPECTED}.") from None


def _initialize(ray: Any, address: str) -> None:
    options = {"include_dashboard": False} if address == LOCAL else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray installs its own


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
    # each array has one element for each node
    node_cpus = np.array([node.get("CPU", 0.0) for node in resources])
    node_gpus = np.array([node.get("GPU", 0.0) for node in resources])
    if gpus is None:
        gpus = float((node_gpus >= 1).any())
    is_share = 0 <= gpus <= 1
    if not is_share and not (gpus > 1 and float(gpus).is_integer()):
        raise ConfigError(f"--gpus-per-run is {gpus:g}; a share of one, or a whole number, was expected.")
    runs_by_gpus = np.floor(node_gpus / gpus + 1e-9) if gpus else np.full(len(node_gpus), np.inf)
    fits = (node_cpus >= (cpus or 1)) & (runs_by_gpus >= 1)
    if not fits.any():
        existing = [f"{node_cpu:g} CPUs and {node_gpu:g} GPUs" for node_cpu, node_gpu in zip(node_cpus, node_gpus)]
        raise ConfigError(
            f"A run needs {cpus or 1} CPU(s) and {gpus:g} GPU(s), which no node has (there are: "
            f"{', '.join(existing) or 'nothing'}): give it less by --cpus-per-run or --gpus-per-run."
        )
    node_cpus, runs_by_gpus = node_cpus[fits], runs_by_gpus[fits]
    if cpus is None:
        cpus = max(1, int((node_cpus // (runs_by_gpus if gpus else 1)).min()))
    at_once = np.minimum(node_cpus // cpus, runs_by_gpus).sum()
    return Shares(cpus, gpus, int(at_once))
