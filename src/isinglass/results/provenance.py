"""Which source, Python and packages a result comes from."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_REPORTED: Final = (
    "isinglass",
    "numpy",
    "tokenizers",
    "torch",
    "tensorflow",
    "tensorflow_cpu",
    "keras",
    "jax",
    "scikit-learn",
    "scipy",
)


def source_commit() -> str | None:
    """Return the commit of this package's source tree, followed by `+` if files differ; None if it has no such tree."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parents[1] / ".git").exists():
        return None
    try:
        found = [
            subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603, S607
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{found[0]}+" if found[1] else found[0]


def installed_versions() -> dict[str, str]:
    """Return the version of Python and of each installed package that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
