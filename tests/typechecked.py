"""Every annotation of the package is checked at run time, shapes and dtypes of arrays included."""

import importlib.util
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

KERNELS = "isinglass.backends.torch.gpu.triton"  # Triton compiles the source of these functions, annotations included

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check_annotations() -> None:
    """Check the annotations of all modules of the package, except Triton's kernels. None is imported yet."""
    package = Path(importlib.util.find_spec("isinglass").origin).parent
    files = [file.relative_to(package.parent).with_suffix("") for file in package.rglob("*.py") if file.stem != "__init__"]
    modules = [".".join(file.parts) for file in files]
    checked = [module for module in modules if not module.startswith(KERNELS)]
    install_import_hook(checked, "tests.typechecked.typechecker")
