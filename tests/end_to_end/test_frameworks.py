"""Each framework alone: the others are not imported when it is used, and the message for a missing one names its extra."""

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from isinglass.backends.protocol import BACKENDS
from isinglass.tasks import TASKS
from tests.tiny import save_tiny, write_glue

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "transformers")
SOURCE = Path(__file__).parents[2] / "src"
NEEDED = {"torch": {"torch"}, "tensorflow": {"tensorflow", "keras"}, "jax": {"jax", "keras"}}
BROUGHT = {"tensorflow": {"jax"}}  # TensorFlow itself imports JAX if it is installed


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("place")
    write_glue(TASKS["wnli"], directory / "glue", rows=8)
    save_tiny(directory / "model", "bert")
    return directory


def training(place: Path, backend: str) -> list[str]:
    return [
        "train",
        "wnli",
        "--data-dir",
        str(place / "glue"),
        "--model",
        str(place / "model"),
        "--backend",
        backend,
        "--max-length",
        "40",
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_framework_is_not_imported_when_another_is_used(backend: str, place: Path) -> None:
    """Guards against start-up time and memory spent on a framework that is not used. transformers is never imported."""
    arguments = [*training(place, backend), "--epochs", "1", "--output-dir", str(place / f"run-{backend}")]
    script = (
        f"import sys\nfrom isinglass.cli import app\napp({arguments!r}, standalone_mode=False)\n"
        f"print('LOADED', *sorted({set(FRAMEWORKS)!r} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(finished.stdout.splitlines()[-1].split()[1:])
    assert NEEDED[backend] <= loaded
    assert not (loaded - NEEDED[backend] - BROUGHT.get(backend, set()))


@pytest.mark.parametrize(
    ("backend", "missing"),
    [("torch", "torch"), ("tensorflow", "tensorflow"), ("jax", "jax"), ("tensorflow", "keras"), ("jax", "keras")],
)
def test_a_backend_that_is_not_installed_is_named_with_its_extra(
    backend: str, missing: str, place: Path, tmp_path: Path
) -> None:
    """The environment is this one without one package: it links to all others."""
    for installed in (Path(directory) for directory in site.getsitepackages()):
        for entry in installed.iterdir():
            if entry.name.partition("-")[0] != missing and not entry.name.endswith(".pth"):
                (tmp_path / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{tmp_path}"}
    arguments = [*training(place, backend), "--output-dir", str(place / "never")]
    finished = subprocess.run(
        [sys.executable, "-S", "-m", "isinglass", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert f"needs {missing}, which is not installed" in line
    assert f"pip install 'isinglass[{backend}]'" in line
    assert finished.stdout == ""
    assert not (place / "never").exists()


def test_asking_for_xla_where_it_is_not_is_one_sentence(place: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "isinglass", *training(place, "torch"), "--xla"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert "xla is not available in the backend torch: use --compile, or --backend tensorflow" in line
