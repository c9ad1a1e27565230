"""Pushing a run to the hub, through the hub's own client, to a local server that keeps what it receives."""

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from isinglass.config import resolve
from isinglass.errors import DataError, HubError, IsinglassError
from isinglass.export.push import push_run
from isinglass.runs.directory import write_run
from isinglass.tasks import TASKS
from isinglass.training.trainer import train
from tests.hub_server import TOKEN, USER, Hub, printed, python, serving
from tests.tiny import save_tiny, write_glue

REPO = f"{USER}/tiny-mrpc"
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
PUSH = """
import json, os, sys
from pathlib import Path
from isinglass.errors import IsinglassError
from isinglass.export.push import push_run
found = []
for repo, options in json.loads(sys.argv[2]):
    os.environ["HF_TOKEN"] = options.pop("token", "hf_that_may_write")
    try:
        found.append([*push_run(Path(sys.argv[1]), repo, **options)])
    except IsinglassError as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Return a finished run whose data and initial weights are in a user's directories. A note names such a directory."""
    home = tmp_path_factory.mktemp("home of jane")
    model = save_tiny(home / "secret" / "first", labels=("red", "green", "blue"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    named = {"name_or_path": str(model), "special_tokens_map_file": str(model / "special_tokens_map.json")}
    (model / "tokenizer_config.json").write_text(json.dumps(config | named))  # as older versions of `transformers` do
    data = write_glue(TASKS["mrpc"], home / "secret" / "glue", {"train": 40, "dev": 12, "test": 4})
    flags = {"model": str(model), "data_dir": str(data), "epochs": 1, "max_length": 40}
    write_run(train(resolve(task="mrpc", flags=flags)), home / "run", overwrite=False)
    (home / "run" / "model" / "private.txt").write_text("not a file of the model's")
    return home / "run"


def push(run: Path, hub: Hub, *pushes: tuple[str, dict[str, object]]) -> list:
    """Return the output of each push, all in one process. `token` among the options is the user's token."""
    return printed(python(run.parent, hub.endpoint, "-c", PUSH, run, json.dumps(pushes)))


def contents(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pushed(run: Path) -> Iterator[tuple[Hub, list]]:
    """Return a hub after eight pushes of the run, and the output of each push."""
    before = contents(run)
    with serving() as hub:
        hub.models |= {f"{USER}/open": False, f"{USER}/closed": True}
        said = push(
            run,
            hub,
            (REPO, {}),
            (REPO, {}),
            (REPO, {"license": "mit"}),
            (f"{USER}/made", {"private": True}),
            (f"{USER}/closed", {"private": True}),
            (f"{USER}/open", {"private": True}),
            (f"{USER}/open", {"revision": "v1/seed-42"}),
            (f"{USER}/open", {"revision": "v1/seed-42"}),
        )
        assert contents(run) == before
        yield hub, said


def test_the_models_files_and_its_card_arrive_in_one_commit_and_nothing_else_does(
    pushed: tuple[Hub, list], run: Path
) -> None:
    """Weights that differ in one byte are another model. A user's path or text on the hub cannot be taken back."""
    hub, said = pushed
    first = hub.commits[0]
    assert said[0] == [f"{hub.endpoint}/{REPO}", f"{1:040x}"]
    assert (first.repo, first.branch, first.summary) == (REPO, "main", "Fine-tuned on MRPC with isinglass")
    assert first.files.keys() == {"README.md", *MODEL_FILES}
    assert {name: first.files[name] for name in MODEL_FILES} == {
        name: (run / "model" / name).read_bytes() for name in MODEL_FILES
    }
    notes = json.loads((run / "result.json").read_text())["notes"]
    assert any("secret" in note for note in notes), "there is something to keep quiet about"
    for commit in hub.commits:
        assert commit.files.keys() <= {"README.md", *MODEL_FILES}
    for name in ("secret", "jane", str(run)):
        assert not any(name.encode() in content for content in hub.received)
        assert not any(name.encode() in content for one in hub.commits for content in one.files.values())


def test_the_card_is_the_hubs_and_names_the_repository(pushed: tuple[Hub, list], run: Path) -> None:
    first, licensed = (ModelCard(one.files["README.md"].decode()) for one in pushed[0].commits[:2])
    assert (first.data.license, licensed.data.license) == (None, "mit")
    assert (first.data.library_name, first.data.base_model, first.data.model_name) == ("transformers", None, "tiny-mrpc")
    result = json.loads((run / "result.json").read_text())
    assert {one.metric_type: one.metric_value for one in first.data.eval_results} == result["metrics"]
    assert f'pipeline("text-classification", model="{REPO}")' in first.text
    assert "Note: first has a head for other labels (red, green, blue): a new one is trained." in first.text


def test_the_cards_own_lines_use_what_was_pushed(
    pushed: tuple[Hub, list], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`transformers` treats a pair and two single texts differently. A snippet that nobody ran may be wrong."""
    for name, content in pushed[0].commits[0].files.items():
        (tmp_path / name).write_bytes(content)
    (snippet,) = re.findall("```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    capsys.readouterr()
    exec(snippet.replace(REPO, str(tmp_path)), {})
    answer = capsys.readouterr().out
    assert re.fullmatch(r"\[\{'label': '[01]', 'score': [\d.]+\}, \{'label': '[01]', 'score': [\d.]+\}\]\n", answer)


def test_a_second_push_of_the_same_run_changes_nothing(pushed: tuple[Hub, list]) -> None:
    """The card has no date, so the same run gives the same files."""
    hub, (first, second, licensed, *_) = pushed
    assert first == second
    assert licensed[1] == f"{2:040x}"
    assert [one.files.keys() for one in hub.commits if one.repo == REPO] == [{"README.md", *MODEL_FILES}, {"README.md"}]


def test_private_repositories_and_branches(pushed: tuple[Hub, list]) -> None:
    """A model meant to be private must not be pushed to a repository that is already public."""
    hub, (*_, made, closed, open_, branch, again) = pushed
    assert hub.models == {REPO: False, f"{USER}/made": True, f"{USER}/closed": True, f"{USER}/open": False}
    assert (made[0], closed[0]) == (f"{hub.endpoint}/{USER}/made", f"{hub.endpoint}/{USER}/closed")
    assert open_ == (
        f"HubError: {USER}/open is on the hub already and is public, which --private does not change: "
        "make it private there, or choose another name."
    )
    assert branch[0] == again[0] == f"{hub.endpoint}/{USER}/open/tree/v1/seed-42"
    assert [(one.repo, one.branch) for one in hub.commits if one.repo != REPO] == [
        (f"{USER}/made", "main"),
        (f"{USER}/closed", "main"),
        (f"{USER}/open", "v1/seed-42"),
        (f"{USER}/open", "v1/seed-42"),
    ]


def test_each_refusal_of_the_hub_is_one_sentence(run: Path) -> None:
    """The client turns ten responses into six kinds of exception, some of them several lines long."""
    with serving() as hub:
        hub.models["other/there"] = False
        hub.steps = {
            f"create {USER}/down": (503, "<html>down for maintenance</html>"),
            f"commit {USER}/broken": (500, {"error": "Internal error\nwith a second line"}),
            f"batch {USER}/full": (413, {"error": "Storage limit reached."}),
            f"store {USER}/gone": (403, "<html>AccessDenied</html>"),
            f"commit {USER}/odd": (200, "<html>a proxy</html>"),
        }
        names = ("other/new", "other/there", *(f"{USER}/{name}" for name in ("down", "broken", "full", "gone", "odd")))
        said = push(
            run,
            hub,
            *((name, {}) for name in names),
            (REPO, {"license": "nonsense"}),
            (f"{USER}/nobodys", {"token": ""}),
            (f"{USER}/nobodys", {"token": "hf_wrong"}),
        )
        assert hub.commits == []
        assert f"{USER}/nobodys" not in hub.models
    for answer in said:
        assert answer.startswith("HubError: ")
        assert len(answer.splitlines()) == 1
        assert answer.endswith(".")
    new, there, down, broken, full, gone, odd, license_, none, wrong = (answer.removeprefix("HubError: ") for answer in said)
    ending = "name a repository of your own, or log in by `hf auth login` with a token that may write."
    assert new == (
        "You may not write to other/new on the hub (403: You don't have the rights to create a model under this namespace): "
        f"{ending}"
    )
    assert there == (f"You may not write to other/there on the hub (403: This repository is somebody else's): {ending}")
    assert down == f"{USER}/down could not be pushed to the hub (503); try again later."
    assert broken == f"{USER}/broken could not be pushed to the hub (500: Internal error); try again later."
    assert full == f"{USER}/full could not be pushed to the hub (413: Storage limit reached)."
    assert gone == f"{USER}/gone could not be pushed to the hub (403)."
    assert odd == f"{USER}/odd could not be pushed: what {hub.endpoint} answers is not JSON, as the hub's answers are."
    assert none == f"There is no token for the hub: log in with `hf auth login`, or set HF_TOKEN, to push {USER}/nobodys."
    assert wrong == "The hub does not take your token (401: Invalid username or password): log in with `hf auth login`."
    assert license_.startswith(f'{REPO} could not be pushed to the hub (Invalid metadata in README.md. - "license" must be')


def test_offline_no_connection_is_tried(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach the hub, so HF_HUB_OFFLINE is set for all tests."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    with pytest.raises(HubError) as caught:
        push_run(run, REPO)
    assert str(caught.value) == f"HF_HUB_OFFLINE is set, so that nothing is sent to the hub: unset it to push {REPO}."


def test_an_endpoint_that_refuses_is_said_in_one_line(run: Path) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))  # bound, but not listening
        nowhere = Hub(f"http://127.0.0.1:{port.getsockname()[1]}")
        (said,) = push(run, nowhere, (REPO, {}))
    assert said.startswith(f"HubError: The connection to the hub at {nowhere.endpoint} failed (")
    assert said.endswith("Connection refused); try again when it works.")


@pytest.mark.parametrize(
    "name",
    ["tiny", "", "a/b/c", "/tiny", "someone/", "some one/tiny", "someone/-tiny", "someone/a--b", "../x", "a/b\n", "é/b"],
)
def test_a_name_that_the_hub_cannot_have_is_said_before_anything_is_asked(name: str, run: Path) -> None:
    with pytest.raises(HubError, match=r"cannot be a model's name on the hub: USER/NAME was expected"):
        push_run(run, name)


@pytest.mark.parametrize("branch", ["", "a b", "../main", "/x", "x" * 200, "a\nb"])
def test_a_branch_that_cannot_be_is_said_too(branch: str, run: Path) -> None:
    with pytest.raises(HubError, match="cannot be a branch on the hub"):
        push_run(run, REPO, revision=branch)


def test_only_a_finished_run_with_its_whole_model_is_pushed(run: Path, tmp_path: Path) -> None:
    """An unfinished run, a bench run without its model, and a damaged model require three different actions by the user."""
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    shutil.copy(run / "result.json", tmp_path / "bare")
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "model" / "model.safetensors").write_bytes(b"not weights")
    for name, expected in (
        ("unfinished", "holds an unfinished run: finish it with `isinglass train --resume`, then push it."),
        ("nowhere", "is not the directory of a finished run: no result.json."),
        ("bare", "has no model/: `isinglass train` keeps it, a bench only with --keep-models."),
    ):
        with pytest.raises(DataError) as caught:
            push_run(tmp_path / name, REPO)
        assert str(caught.value) == f"{tmp_path / name} {expected}"
    with pytest.raises(IsinglassError, match=r"model\.safetensors"):
        push_run(tmp_path / "damaged", REPO)
