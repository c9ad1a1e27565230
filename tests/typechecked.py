"""Check the annotations of the package at run time, shapes and dtypes of arrays included."""

import importlib.util
from pathlib import Path
from typing import Any, Self

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

UNCHECKED = (
    "isinglass.backends.torch.gpu.triton",  # Triton compiles the source of these functions, annotations included
    "isinglass.backends.torch.batch",  # torch.compile traces the functions of a model, and what wraps them
    "isinglass.backends.torch.cpu",
    "isinglass.backends.torch.model",
    "isinglass.backends.keras",  # Keras looks at the signatures of its layers' methods
    "isinglass.config",  # these refuse values of a wrong type by a sentence, and are tested with such
    "isinglass.estimators",
    "isinglass.tuning",
)

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def typechecker(function: Any) -> Any:
    """Return the function with checked annotations; unchanged if one is `Self`, which beartype checks in classes only."""
    return function if Self in getattr(function, "__annotations__", {}).values() else _check(function)


def check_annotations() -> None:
    """Check the annotations of all modules of the package but UNCHECKED. Call it before any of them is imported."""
    package = Path(importlib.util.find_spec("isinglass").origin).parent
    files = [file.relative_to(package.parent).with_suffix("") for file in package.rglob("*.py") if file.stem != "__init__"]
    modules = [".".join(file.parts) for file in files]
    checked = [module for module in modules if not module.startswith(UNCHECKED)]
    install_import_hook(checked, f"{typechecker.__module__}.typechecker")
