"""Keep tests away from the user's caches and the hub, and check annotations."""

import os
import signal
from pathlib import Path

import pytest

from tests.typechecked import check_annotations

check_annotations()

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel: more threads would slow each other down
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: its kernels run on the CPU
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background by a shell ignores Ctrl-C
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # otherwise tokenizers warns when a test forks


@pytest.fixture(scope="session", autouse=True)
def token_cache(tmp_path_factory) -> None:
    os.environ["ISINGLASS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """Return the directory of GLUE's own files, that `ISINGLASS_GLUE_DIR` names; skip the test without it."""
    if not os.environ.get("ISINGLASS_GLUE_DIR"):
        pytest.skip("ISINGLASS_GLUE_DIR is not set")
    return Path(os.environ["ISINGLASS_GLUE_DIR"])
