"""The examples for clusters, which no test can run: shellcheck accepts the script, manifests have the required fields."""

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from isinglass.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "slurm" / "train.sbatch"
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")


class UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, of which YAML silently uses the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key stands twice"
        return super().construct_mapping(node, deep)


def manifest(name: str) -> dict[str, Any]:
    return yaml.load((EXAMPLES / "kubernetes" / name).read_text(), Loader=UniqueKeys)


def check_pod(template: dict[str, Any], *, at_least: int) -> dict[str, Any]:
    """Check what Kubernetes requires of a pod template and its volumes; return its only container."""
    assert set(template) == {"spec"}
    spec = template["spec"]
    assert set(spec) <= {"containers", "volumes", "terminationGracePeriodSeconds"}
    (container,) = spec["containers"]
    assert set(container) <= {"name", "image", "command", "ports", "resources", "volumeMounts"}
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", container["name"])
    assert container["image"]
    assert all(isinstance(word, str) for word in container.get("command", []))
    for port in container.get("ports", []):
        assert set(port) == {"name", "containerPort"}
        assert re.fullmatch(r"[a-z0-9-]{1,15}", port["name"])
        assert 0 < port["containerPort"] < 65536
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert all(QUANTITY.fullmatch(str(value)) for value in (*requests.values(), *limits.values()))
    assert requests["memory"] == limits["memory"]
    assert limits.get("nvidia.com/gpu", 0) >= at_least
    volumes = {volume["name"]: set(volume) - {"name"} for volume in spec["volumes"]}
    assert all(len(kinds) == 1 for kinds in volumes.values())
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert all(mount["mountPath"].startswith("/") for mount in container["volumeMounts"])
    return container


def check_command(words: list[str]) -> dict[str, str]:
    """Check that every option of an isinglass command exists; return the options with their values."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    text = " ".join(words[1:]).replace("=", " ").split()
    options = {word: (text[i + 1] if i + 1 < len(text) else "") for i, word in enumerate(text) if word.startswith("--")}
    assert set(options) <= known, f"isinglass {words[0]} has no {sorted(set(options) - known)}"
    return options


@pytest.mark.parametrize("path", [SCRIPT], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    found = subprocess.run([shellcheck, "--severity=style", path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_script_asks_slurm_for_a_signal_and_resumes():
    """Without the signal nothing is saved before the time limit, and without --resume a requeued job is refused."""
    text = SCRIPT.read_text()
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", text, re.MULTILINE))
    assert directives["ntasks-per-node"] == "1"  # torchrun starts the processes of a node
    assert re.fullmatch(r"USR1@\d+", directives["signal"])
    assert directives["open-mode"] == "append"
    assert "requeue" in directives
    words = text.replace("\\\n", " ").split("-m isinglass ")[1].split("||")[0].split()
    assert {"--resume", "--checkpoint-every", "--output-dir"} <= set(check_command(words))


@pytest.mark.parametrize("path", [SCRIPT, *MANIFESTS], ids=lambda path: path.name)
def test_an_example_says_what_was_not_run(path):
    head = path.read_text().split("\n\n")[0] if path.suffix == ".yaml" else path.read_text()
    comments = " ".join(line.lstrip("# ") for line in head.splitlines() if line.startswith("#"))
    assert re.search(r"never (run under Slurm|applied to a cluster)", comments)
    assert "Change: " in comments


def test_the_pytorchjob_has_what_the_training_operator_requires():
    """kubeflow.org/v1 requires a Master of one replica and a container called pytorch. Pods meet at the master's service."""
    job = manifest("pytorchjob.yaml")
    assert (job["apiVersion"], job["kind"], set(job)) == (
        "kubeflow.org/v1",
        "PyTorchJob",
        {"apiVersion", "kind", "metadata", "spec"},
    )
    assert set(job["spec"]) == {"runPolicy", "pytorchReplicaSpecs"}
    assert set(job["spec"]["runPolicy"]) <= {"cleanPodPolicy", "backoffLimit", "ttlSecondsAfterFinished", "suspend"}
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert set(replica) == {"replicas", "restartPolicy", "template"}
        assert replica["restartPolicy"] == "OnFailure"
        container = check_pod(replica["template"], at_least=1)
        assert container["name"] == "pytorch"
        words = container["command"]
        launcher = dict(word.removeprefix("--").split("=") for word in words[1 : words.index("-m")])
        assert words[0] == "torchrun"
        assert int(launcher["nnodes"]) == sum(one["replicas"] for one in replicas.values())
        assert int(launcher["nproc-per-node"]) == container["resources"]["limits"]["nvidia.com/gpu"]
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == "pytorchjob-port")
        assert launcher["rdzv-endpoint"] == f"{job['metadata']['name']}-master-0:{port}"
        assert words[words.index("-m") + 1] == "isinglass"
        options = check_command(words[words.index("-m") + 2 :])
        assert {"--resume", "--checkpoint-every", "--output-dir"} <= set(options)
        assert options["--output-dir"].startswith("/data/")


def test_the_rayjob_has_what_kuberay_requires():
    """ray.io/v1 requires an entrypoint, a head and worker groups, each with start parameters and a pod template."""
    job = manifest("rayjob.yaml")
    assert (job["apiVersion"], job["kind"], set(job)) == ("ray.io/v1", "RayJob", {"apiVersion", "kind", "metadata", "spec"})
    spec = job["spec"]
    assert set(spec) == {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert isinstance(cluster["rayVersion"], str)
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) == {"rayStartParams", "template"}
    assert set(workers) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert all(isinstance(value, str) for value in (head["rayStartParams"] | workers["rayStartParams"]).values())
    images = {check_pod(head["template"], at_least=0)["image"], check_pod(workers["template"], at_least=1)["image"]}
    assert len(images) == 1  # Ray refuses workers whose version differs from the head's
    words = spec["entrypoint"].split()
    assert words[0] == "isinglass"
    options = check_command(words[1:])
    assert options["--on"] == "ray"
    assert options["--storage"].startswith("/data/")  # a run resumes from it when its node is lost
