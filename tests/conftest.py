"""Nothing a test does touches the user's caches or the hub."""

import os
import signal
from pathlib import Path

import pytest

from tests.typechecked import check_annotations

check_annotations()

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side: threads that wait for each other would only fight
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: its kernels run on the CPU
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore Ctrl-C
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # transformers forks nothing here, but warns


@pytest.fixture(scope="session", autouse=True)
def token_cache(tmp_path_factory) -> None:
    os.environ["ISINGLASS_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def glue_dir() -> Path:
    """GLUE's own files, where `ISINGLASS_GLUE_DIR` names them."""
    if not os.environ.get("ISINGLASS_GLUE_DIR"):
        pytest.skip("ISINGLASS_GLUE_DIR is not set")
    return Path(os.environ["ISINGLASS_GLUE_DIR"])
