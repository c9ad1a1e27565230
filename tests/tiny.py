"""Make small random models of each family with `transformers`, and small data in GLUE's layout."""

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from isinglass.data.inputs import open_input
from isinglass.data.tokenization import TokenizedTexts
from isinglass.runs.directory import FinishedModel
from isinglass.runs.predict import predict_input
from isinglass.runs.predictions import DelimitedWriter
from isinglass.tasks import Split, Task

WORDS = (
    "the a cat dog man woman house river reads sleeps runs sings quickly slowly never always big small red blue and or "
    "not in on under with without his her rain snow music book city road is was will be good bad true false"
).split()
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIALS, *WORDS, *(f"w{i}" for i in range(60)))

# model_type -> class of the configuration in `transformers`, and what is small or unusual in it
SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, layer_norm_eps=1e-5)
CONFIGS = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", SIZES | dict(type_vocab_size=1, pad_token_id=1)),
    "distilbert": ("DistilBertConfig", dict(dim=24, n_layers=2, n_heads=3, hidden_dim=40)),
    "electra": ("ElectraConfig", SIZES | dict(embedding_size=16)),
    "xlm-roberta": ("XLMRobertaConfig", SIZES | dict(type_vocab_size=1, pad_token_id=1)),
}
FAMILIES = tuple(CONFIGS)
ARCHITECTURES = ("bert", "roberta", "distilbert", "electra")  # families whose computations differ
LIKE_ROBERTA = ("roberta", "xlm-roberta")  # without token types, and with two separators between texts


def types_of(family: str) -> int:
    """Return the number of token types of a family's tokenizer."""
    return 1 if family in LIKE_ROBERTA else 2


def tiny_tokenizer(family: str) -> Tokenizer:
    """Return a tokenizer of the words of VOCABULARY. Like RoBERTa's: pad id 1, doubled separators, no token types."""
    order = [*VOCABULARY]
    if family in LIKE_ROBERTA:
        order[0], order[1] = order[1], order[0]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(order)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    separators = "[SEP]:0 [SEP]:0" if family in LIKE_ROBERTA else "[SEP]:0"
    second = types_of(family) - 1
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair=f"[CLS]:0 $A:0 {separators} $B:{second} [SEP]:{second}",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def tiny_config(family: str, **changes: object):
    """Return a `transformers` configuration with unusual values, so that a test fails if one is ignored."""
    import transformers

    kind, values = CONFIGS[family]
    common = dict(vocab_size=len(VOCABULARY), max_position_embeddings=80, pad_token_id=0, initializer_range=0.3)
    return getattr(transformers, kind)(**{**common, **values, **changes})


def reference_model(config, num_labels: int = 3, seed: int = 0):
    """Return a `transformers` classifier with random weights, biases and LayerNorms included."""
    from transformers import AutoModelForSequenceClassification

    config.num_labels = num_labels
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def save_tiny(directory: Path, family: str = "bert", *, labels: tuple[str, ...] | None = None, **changes: object) -> Path:
    """Write a tiny random checkpoint: the bare pretrained encoder, or a classifier with `labels`."""
    from transformers import AutoModel

    config = tiny_config(family, **changes)
    if labels is None:
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
    else:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: i for i, name in enumerate(labels)}
        model = reference_model(config, len(labels))
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tiny_tokenizer(family).save(str(directory / "tokenizer.json"))
    specials = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 70, **specials}
    (directory / "tokenizer_config.json").write_text(json.dumps(values))
    return directory


def random_tokens(lengths: list[int], seed: int = 0, *, types: int = 2) -> TokenizedTexts:
    """Return random ids (no special ones) of the given lengths; token types rise from 0 within each example."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(len(SPECIALS), len(VOCABULARY), n) for n in lengths]
    kinds = [np.sort(rng.integers(0, types, n)) for n in lengths]
    return TokenizedTexts(
        input_ids=np.concatenate(ids).astype(np.int32),
        token_type_ids=np.concatenate(kinds).astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        truncated=0,
    )


def sentence(rng: np.random.Generator, words: int) -> str:
    """Return `words` random words."""
    return " ".join(rng.choice(WORDS, words))


def write_glue(task: Task, directory: Path, rows: dict[str, int] | int = 24, seed: int = 0) -> Path:
    """Write all files of a task in GLUE's layout with random sentences; the label follows from the first word's length.

    Columns that isinglass does not read contain `-`. Returns the data directory.
    """
    rng = np.random.default_rng(seed)
    folder = directory / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    for split in task.splits:
        count = rows if isinstance(rows, int) else rows[split.name]
        lines = [*_header(split)]
        for i in range(count):
            texts = [sentence(rng, int(rng.integers(2, 12))) for _ in split.text_columns]
            names = task.labels or tuple(f"{score:.3f}" for score in (0, 0.9, 2.5, 4, 5))
            label = names[len(texts[0].split()[0]) % len(names)]
            lines.append(_row(split, i, texts, label))
        (folder / split.file).write_bytes("".join(f"{line}\n" for line in lines).encode())
    return directory


def _header(split: Split) -> list[str]:
    if not split.has_header:
        return []
    label = [] if split.label_column is None else [str(split.label_column)]
    return ["\t".join(["index", *map(str, split.text_columns), *label])]


def _row(split: Split, index: int, texts: list[str], label: str) -> str:
    if split.has_header:
        return "\t".join([str(index), *texts, *([] if split.label_column is None else [label])])
    width = 1 + max(int(c) for c in (*split.text_columns, split.label_column or 0))
    fields = ["-"] * width
    fields[int(split.text_columns[0])] = texts[0]
    if split.label_column is not None:
        fields[int(split.label_column)] = label
    return "\t".join(fields)


def input_rows(model: FinishedModel, path: Path) -> list[list[str]]:
    """Return what `isinglass predict --input` prints: the header and a row for each example."""
    with tempfile.TemporaryFile("w+", newline="") as printed:
        writer = DelimitedWriter(printed)
        for predictions in predict_input(model, open_input(path, model.task)):
            writer.write(predictions)
        printed.seek(0)
        return [*csv.reader(printed, "excel-tab")]
