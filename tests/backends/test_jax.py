"""JAX runs the same files as TensorFlow: the whole suite of the backends again, in a process whose Keras is JAX's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.variants import KERAS


@pytest.mark.slow
@pytest.mark.skipif(KERAS == "jax", reason="this process is that one")
def test_every_test_of_the_backends_passes_on_jax() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/backends",
        "tests/parity",
        "tests/end_to_end/test_keras.py",
        "-k",
        "jax or keras or agree",
    ]
    finished = subprocess.run(
        command,
        env={**os.environ, "ISINGLASS_TEST_KERAS": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed is not None and int(passed[1]) > 40
