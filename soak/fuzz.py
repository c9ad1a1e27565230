"""Feed hostile files to every reader for a long time and under a memory limit, and check the property of `tests/fuzzing.py`.

Each target runs in a process of its own, whose address space is limited to 4 GiB. An input that breaks the property is
printed with its target and seed, which reproduce it. Each target appends one line to `--output`. The exit status is 1 if
any input broke the property.

    python soak/fuzz.py --inputs 100000 --seed 1
    python soak/fuzz.py --target results --only-seed 10000975
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from isinglass.results import installed_versions, source_commit
from tests.fuzzing import SLOWEST_SECONDS, TARGETS, check, make_case

MEMORY = 4 << 30  # bytes of address space
SEEDS = 10_000_000  # inputs of one --seed; two seeds never share an input
HUNG_SECONDS = 60.0


def main() -> int:
    arguments = _arguments()
    if arguments.child:
        return _run_target(arguments)
    targets = [arguments.target] if arguments.target else [*TARGETS]
    if arguments.only_seed is not None:
        targets = targets if arguments.target else sys.exit("--only-seed needs --target")
    escaped = False
    for i, target in enumerate(targets):
        count = arguments.inputs // len(targets) + (i < arguments.inputs % len(targets))
        escaped |= not _in_a_process(target, count, arguments)
    return int(escaped)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="number of inputs, spread evenly over the targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=[*TARGETS])
    parser.add_argument("--only-seed", type=int, help="run this input only, with full messages")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "soak" / "results" / "fuzz.jsonl")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_a_process(target: str, count: int, arguments: argparse.Namespace) -> bool:
    """Run one target, and return whether no input broke the property. A process that died had noted its seed."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would be slower than the readers
    with tempfile.TemporaryDirectory(prefix="isinglass-fuzz-", dir=memory) as place:
        command = [
            sys.executable,
            __file__,
            "--child",
            "--target",
            target,
            "--inputs",
            str(count),
            "--seed",
            str(arguments.seed),
        ]
        command += ["--output", str(arguments.output.absolute())]
        command += [] if arguments.only_seed is None else ["--only-seed", str(arguments.only_seed)]
        ended = subprocess.run(command, cwd=place, env=os.environ | {"TMPDIR": place}, check=False).returncode
        now = pathlib.Path(place, "now")
        if ended not in (0, 1):
            seed = int(now.read_text()) if now.exists() else None
            print(f"{target}: the process died of {seed} (exit status {ended})", flush=True)
            found = {"target": target, "inputs": count, "escaped": 1, "died_of": seed, "exit_status": ended}
            _append(arguments.output, found)
    return ended == 0


def _run_target(arguments: argparse.Namespace) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    first = arguments.seed * SEEDS
    seeds = range(first, first + arguments.inputs)
    if arguments.only_seed is not None:
        seeds = range(arguments.only_seed, arguments.only_seed + 1)
    files = pathlib.Path("files")
    files.mkdir()
    counts = {"accepted": 0, "refused": 0, "escaped": 0}
    slowest, of, started, told = 0.0, None, time.monotonic(), time.monotonic()
    memory_before = _peak_memory_mib()
    with open("now", "wb", buffering=0) as now:
        for done, seed in enumerate(seeds, start=1):
            os.pwrite(now.fileno(), b"%d" % seed, 0)
            with _alarm():
                outcome = check(make_case(arguments.target, seed), files)
            counts["escaped" if outcome.escaped else "accepted" if outcome.accepted else "refused"] += 1
            if outcome.seconds > slowest:
                slowest, of = outcome.seconds, seed
            if outcome.escaped:
                print(f"{arguments.target} --only-seed {seed}: {outcome.escaped}", flush=True)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"{arguments.target}: {done:,} of {len(seeds):,} {counts}", flush=True)
    strangers = {path.name for path in pathlib.Path().iterdir()} - {"files", "now"}
    if strangers:
        counts["escaped"] += 1
        print(f"{arguments.target}: written outside: {sorted(strangers)}", flush=True)
    found = {
        "target": arguments.target,
        "inputs": len(seeds),
        "seeds": [seeds[0], seeds[-1]] if seeds else [],
        **counts,
        "slowest_seconds": round(slowest, 4),
        "slowest_seed": of,
        "peak_memory_mib": round(_peak_memory_mib()),
        "memory_before_mib": round(memory_before),
        "seconds": round(time.monotonic() - started, 1),
        "versions": installed_versions(),
        "git_commit": source_commit(),
    }
    print(json.dumps({name: value for name, value in found.items() if name != "versions"}), flush=True)
    if arguments.only_seed is None:
        _append(arguments.output, found)
    return int(counts["escaped"] > 0)


@contextmanager
def _alarm() -> Iterator[None]:
    """Interrupt an input that hangs; `check` reports an input that is only slow."""
    signal.signal(signal.SIGALRM, _hung)
    signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _hung(*_: object) -> None:
    raise TimeoutError(f"still running after {HUNG_SECONDS:.0f} s; {SLOWEST_SECONDS:.0f} are allowed")


def _peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _append(output: pathlib.Path, found: dict[str, object]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    sys.exit(main())
