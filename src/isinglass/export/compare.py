"""Score an exported model by ONNX Runtime on the dev sets, beside the model that it was made of."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from isinglass.data import open_data
from isinglass.data.tokenization import TokenizedTexts
from isinglass.export.onnx import OUTPUT, Exported, check_package
from isinglass.runs.directory import FinishedModel
from isinglass.tables import Table
from isinglass.training.evaluation import evaluate, score
from isinglass.training.observers import Observers


def compare(model: FinishedModel, exported: Exported, observers: Observers = ()) -> Table:
    """Score the model and each exported file on the dev sets of the model's task, a row for each file and dev set.

    The model is scored in fp32, the precision of the file, whatever precision it was trained in.

    The largest difference is that between a file's probabilities (in regression: values) and the model's; the same answers
    are the share of predictions that are the model's (in regression: none).

    Raises:
        IsinglassError: the data cannot be read any more, or as `evaluate`.
    """
    config = replace(model.config, precision="fp32")
    data = open_data(config, model.task)
    _, dev_sets = evaluate(config, model.checkpoint, None, observers, data=data)
    files = [path for path in exported.files if path.suffix == ".onnx"]
    kind, pad_token_id = model.task.kind, model.checkpoint.blueprint.embeddings.pad_token_id
    rows = []
    for scored in dev_sets:
        tokens = scored.split.tokens
        outputs_of = {"model": scored.outputs}
        outputs_of |= {path.name: tokens.per_text(onnx_outputs(path, tokens, pad_token_id)) for path in files}
        for file, outputs in outputs_of.items():
            distances = np.abs(kind.probabilities(outputs) - kind.probabilities(scored.outputs))
            share = kind.agreement(scored.outputs, outputs, scored.threshold)
            agreement = "-" if math.isnan(share) else f"{share:.1%}"
            scores = score(model.task, replace(scored, outputs=outputs))
            texts = (metric.text(each.value) for metric, each in scores.items())
            rows.append((scored.split.name, str(len(outputs)), file, *texts, f"{distances.max():.1e}", agreement))
    metrics = (metric.replace("_", " ") for metric in scores)
    columns = ("split", "rows", "file", *metrics, "largest difference", "same answers")
    return Table(columns=columns, rows=tuple(rows))


def onnx_outputs(
    path: Path, tokens: TokenizedTexts, pad_token_id: int, *, batch_size: int = 32, threads: int = 0
) -> Float32[np.ndarray, "N outputs"]:
    """Return the logits of an exported model, in the order of the file.

    Args:
        path: of the float32 or the int8 model.
        tokens: at least one in each example, and no more than the model has positions for.
        batch_size: most examples of a batch. Examples of like length share a batch, padded to its longest.
        threads: of ONNX Runtime; 0: one for each core.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
    """
    check_package("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    outputs = np.full((len(tokens), session.get_outputs()[0].shape[1]), np.nan, np.float32)
    longest_first = np.argsort(-tokens.lengths, kind="stable")  # the first batch takes the most memory
    for start in range(0, len(tokens), batch_size):
        index = longest_first[start : start + batch_size]
        padded = _padded(tokens, index, pad_token_id)
        (outputs[index],) = session.run([OUTPUT], {name: padded[name] for name in inputs})
    return outputs


def _padded(
    tokens: TokenizedTexts, index: Int64[np.ndarray, " B"], pad_token_id: int
) -> dict[str, Int64[np.ndarray, "B L"]]:
    """Return the examples `index` as the model's inputs."""
    positions, lengths = np.arange(tokens.lengths[index].max()), tokens.lengths[index, None]
    is_token = positions < lengths
    sources = (tokens.offsets[index, None] + positions)[is_token]
    input_ids, token_type_ids = np.full(is_token.shape, pad_token_id, np.int64), np.zeros(is_token.shape, np.int64)
    input_ids[is_token], token_type_ids[is_token] = tokens.input_ids[sources], tokens.token_type_ids[sources]
    return {"input_ids": input_ids, "attention_mask": is_token.astype(np.int64), "token_type_ids": token_type_ids}
