"""JAX runs the same files as TensorFlow: the backend tests of one family, in a process whose Keras backend is JAX."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.variants import KERAS

FILES = ("tests/backends", "tests/parity", "tests/end_to_end/test_keras.py")
CHOSEN = (
    "(electra and jax) or (twenty and electra) or dropout_has or counted or micro or answers_alike"  # E != H: every layer
)


@pytest.mark.slow
@pytest.mark.skipif(KERAS == "jax", reason="this process is that one")
def test_the_suite_of_the_backends_passes_on_jax() -> None:
    """All families pass too (`ISINGLASS_TEST_KERAS=jax pytest tests/backends tests/parity`), but compiling takes minutes."""
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *FILES, "-k", CHOSEN],
        env={**os.environ, "ISINGLASS_TEST_KERAS": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed is not None and int(passed[1]) >= 14
