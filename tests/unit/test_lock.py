"""The lock files of `make test`: every package in one version, with the hashes of its files."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK, CPU, CUDA = "requirements-dev.lock", "requirements-torch-cpu.lock", "requirements-torch-cuda.lock"
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(file: str) -> dict[str, list[str]]:
    """Return name -> words of the requirement: `name==version` and its hashes."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, list[str]] = {}
    for requirement in "\n".join(lines).replace("\\\n", " ").splitlines():
        words = requirement.split()
        name = canonical(words[0].partition("==")[0])
        assert name not in found, f"{name} is there twice"
        found[name] = words
    return found


@pytest.mark.parametrize("file", [LOCK, CPU, CUDA])
def test_each_package_of_a_lock_has_one_version_and_a_hash(file: str) -> None:
    """Guards against a requirement without a hash. pip refuses a file whose hash differs."""
    for requirement, *hashes in entries(file).values():
        assert re.fullmatch(r"[a-z0-9-]+==[^;*]+", requirement)
        assert hashes
        assert all(HASH.fullmatch(word) for word in hashes), requirement


def test_the_lock_holds_what_constraints_and_pyproject_name() -> None:
    """Guards against a version or a dependency that was changed without `make lock`."""
    locked = {name: words[0].partition("==")[2] for name, words in (entries(LOCK) | entries(CUDA)).items()}
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(pins) > 20
    for name, version in pins:
        assert locked.get(canonical(name)) == version, f"{name}=={version} is in constraints.txt: run `make lock`"
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    own, *developing = extras["dev"]  # isinglass[...], and the others
    named = own.removeprefix("isinglass[").removesuffix("]").split(",")
    wanted = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"], *developing]
    wanted += [requirement for extra in named for requirement in extras[extra]]
    for requirement in wanted:
        assert canonical(re.match(r"[\w.-]+", requirement)[0]) in locked, f"{requirement}: run `make lock`"


def test_torch_is_locked_in_both_its_builds_and_nowhere_else() -> None:
    """`make test` installs the CPU build where pip finds it. The CPU file is written by hand and easily forgotten."""
    main, cpu, cuda = (entries(file) for file in (LOCK, CPU, CUDA))
    assert list(cpu) == ["torch", "triton"]
    assert cpu["triton"] == cuda["triton"]
    assert cpu["torch"][0] == f"{cuda['torch'][0]}+cpu"
    assert {name.partition("-")[0] for name in cuda} == {"cuda", "nvidia", "torch", "triton"}
    assert not main.keys() & cuda.keys()
