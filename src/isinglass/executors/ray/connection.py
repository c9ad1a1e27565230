"""Starting or joining a Ray."""

import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from isinglass.config.settings import ClusterSettings
from isinglass.errors import ConfigError, MissingDependencyError
from isinglass.executors.ray.executor import RayExecutor, first_line
from isinglass.executors.ray.resources import share_nodes
from isinglass.executors.stored_checkpoints import is_url, open_file_system
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
    address = _address(options.on)
    _check_storage(options, address)
    ray = _join(address)
    try:
        executor = _executor(ray, options, address, directory)
        try:
            yield executor
        finally:
            with suppress(Exception):  # the connection itself may be lost
                executor.end()
    finally:
        ray.shutdown()


def _address(on: str) -> str:
    if on == "ray":
        return os.environ.get("RAY_ADDRESS") or LOCAL
    if re.fullmatch(r"ray://[^\s/]+:\d{1,5}", on):
        return on
    raise ConfigError(f"--on is {on!r}; {EXPECTED}.")


def _check_storage(options: ClusterSettings, address: str) -> None:
    Interval.parse(options.checkpoint_every)
    if options.storage is not None:
        if is_url(options.storage):
            open_file_system(options.storage)
        return
    if address != LOCAL and options.checkpoint_every != "never":
        raise ConfigError(
            "A run whose node is lost continues from checkpoints that every node sees: name a shared directory, or a URL, "
            "with --storage, or give them up with --checkpoint-every never."
        )


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
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.ERROR, **options)
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray installs its own


def _executor(ray: Any, options: ClusterSettings, address: str, directory: Path) -> RayExecutor:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = share_nodes(nodes, options.cpus_per_run, options.gpus_per_run)
    cluster = "a local one" if address == LOCAL else f"{address}, {len(nodes)} node(s)"
    storage = options.storage or str(directory / "checkpoints")
    if not is_url(storage):
        storage = str(Path(storage).absolute())
    return RayExecutor(
        ray,
        directory,
        shares,
        storage=None if options.checkpoint_every == "never" else storage,
        checkpoint_every=options.checkpoint_every,
        summary=f"Ray: {cluster}; {shares}.",
    )
