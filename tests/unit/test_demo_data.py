"""The embedded data: the properties of a fair small task."""

import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from isinglass.data.glue import PublishedFiles
from isinglass.tasks import TASKS

DEMO = TASKS["demo"]


@pytest.fixture(scope="module")
def splits():
    return {split.name: PublishedFiles(task=DEMO, data_dir=None).read(split) for split in DEMO.splits}


def test_at_least_1200_balanced_pairs_of_the_stated_sizes(splits) -> None:
    assert sum(len(examples) for examples in splits.values()) >= 1200
    for split in DEMO.splits:
        examples = splits[split.name]
        assert len(examples) == split.rows
        assert set(Counter(examples.labels).values()) == {len(examples) // 3}


def test_premises_are_not_shared_between_the_splits_nor_within_one(splits) -> None:
    premises = [premise.lower() for examples in splits.values() for premise in examples.texts[0]]
    assert len(set(premises)) == len(premises)


def test_no_two_pairs_share_more_than_half_their_words(splits) -> None:
    """The share is of the shorter pair's distinct words, function words included: no text may come from a template."""
    pairs = [p + " " + h for examples in splits.values() for p, h in zip(*examples.texts)]
    sets = [set(re.findall(r"[a-z0-9']+", pair.lower())) for pair in pairs]
    known = {word: i for i, word in enumerate(sorted(set().union(*sets)))}
    has = np.zeros((len(sets), len(known)), np.float32)
    for i, words in enumerate(sets):
        has[i, [known[word] for word in words]] = 1
    sizes = has.sum(1)
    share = has @ has.T / np.minimum(sizes[:, None], sizes[None, :])
    np.fill_diagonal(share, 0)
    i, j = np.unravel_index(share.argmax(), share.shape)
    assert share.max() <= 0.5, (pairs[i], pairs[j])


def test_the_hypothesis_alone_does_not_give_the_label_away(splits) -> None:
    """A bag of words of the hypothesis must score at most 0.45, trained on train or cross-validated over all splits."""
    hypotheses = [h for examples in splits.values() for h in examples.texts[1]]
    labels = [label for examples in splits.values() for label in examples.labels]
    features = CountVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(hypotheses)
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    for strength in (0.1, 1.0):
        model = LogisticRegression(C=strength, max_iter=5000)
        assert cross_val_score(model, features, labels, cv=folds).mean() <= 0.45
        n = len(splits["train"])
        model.fit(features[:n], labels[:n])
        assert model.score(features[n:], labels[n:]) <= 0.45
