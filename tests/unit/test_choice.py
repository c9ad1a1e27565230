"""The recipe `auto`: what it chooses, what it leaves to the user, and that the time stays within its limit."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isinglass.config import RECIPES, as_dict, changed, identifying, resolve
from isinglass.errors import ConfigError
from isinglass.models.source import load_model
from isinglass.training.choice import FORWARD, MOST_TIME, SMALL_BATCH_TIME, Facts, choose

OWN = {"train_file": ["mine.csv"]}


@functools.cache
def _blueprint():
    return load_model("demo").blueprint


def _facts(lengths, *, dev_rows: int = 0, has_head: bool = False, is_multilabel: bool = False) -> Facts:
    lengths = np.asarray(lengths, np.int64)
    return Facts(blueprint=_blueprint(), lengths=lengths, dev_rows=dev_rows, has_head=has_head, is_multilabel=is_multilabel)


def test_own_files_have_the_recipe_auto_and_published_tasks_classic():
    assert resolve(task="mine", flags=OWN).recipe == "auto"
    assert resolve(task="rte").recipe == "classic"
    assert resolve(task="mine", recipe="classic", flags=OWN).chosen == ()
    assert resolve(task="rte", recipe="auto").chosen == RECIPES["auto"].chooses


def test_what_the_user_sets_is_not_chosen():
    config = resolve(task="mine", flags=OWN | {"epochs": 2}, assignments=("warmup_ratio=0.2",))
    assert {"epochs", "warmup_ratio"}.isdisjoint(config.chosen)
    chosen, sentence = choose(config, _facts([10] * 100))
    assert (chosen.epochs, chosen.warmup_ratio) == (2, 0.2)
    assert "epochs" not in sentence and "learning_rate" in sentence
    assert "learning_rate" not in changed(config, learning_rate=1e-3).chosen


def test_saved_settings_say_which_were_chosen_and_resolve_to_themselves():
    chosen, _ = choose(resolve(task="mine", flags=OWN), _facts([10] * 100))
    saved = as_dict(chosen)
    again = resolve(task=saved.pop("task"), recipe=saved.pop("recipe"), flags=saved)
    assert again == chosen
    assert choose(again, _facts([10] * 100))[0] == chosen


def test_two_runs_are_the_same_whatever_the_recipe_chose():
    config = resolve(task="mine", flags=OWN)
    chosen, _ = choose(config, _facts([10] * 100))
    assert chosen != config
    assert identifying(as_dict(chosen)) == identifying(as_dict(config))
    assert identifying(as_dict(changed(config, epochs=9))) != identifying(as_dict(config))


def test_short_texts_are_read_whole_and_long_ones_as_far_as_time_allows():
    config = resolve(task="mine", flags=OWN)
    short, reason = choose(config, _facts([5, 20, 61]))
    assert short.max_length == 64 and "the longest text" in reason
    long, reason = choose(config, _facts([400] * 1000))
    assert 128 < long.max_length < 400 and long.epochs == 3
    assert "cuts 100% of the texts" in reason
    assert choose(config, _facts([30] * 1000 + [9000]))[0].max_length == 512


def test_a_head_that_fits_is_kept():
    chosen, reason = choose(resolve(task="mine", flags=OWN), _facts([10] * 100, has_head=True))
    assert chosen.head_start == "random" and "kept" in reason


def test_few_rows_are_trained_on_in_small_batches():
    config = resolve(task="mine", flags=OWN)
    assert choose(config, _facts([10] * 100))[0].batch_size == 16
    assert choose(config, _facts([10] * 20_000))[0].batch_size == 32
    assert choose(changed(config, batch_size=64), _facts([10] * 100))[0].batch_size == 64


def test_the_last_epoch_is_kept_since_few_dev_rows_mistake_the_best():
    config = resolve(task="mine", flags=OWN)
    assert not choose(config, _facts([10] * 100, dev_rows=10))[0].keep_best
    kept = changed(config, keep_best=True)
    large = _facts([10] * 100, dev_rows=100)
    assert choose(kept, large)[0].epochs < choose(config, large)[0].epochs  # each epoch is scored


@given(st.lists(st.integers(3, 2000), min_size=1, max_size=200), st.integers(0, 100))
def test_a_run_takes_at_most_twice_the_time_of_classic(lengths, dev_rows):
    facts = _facts(lengths, dev_rows=dev_rows)
    chosen, _ = choose(resolve(task="mine", flags=OWN), facts)
    epoch = facts.tokens(chosen.max_length)
    scoring = FORWARD * epoch * dev_rows / len(lengths)
    tokens = chosen.epochs * epoch * SMALL_BATCH_TIME + FORWARD * epoch + scoring
    classic = 3 * int(np.minimum(lengths, 128).sum())
    assert tokens <= MOST_TIME * classic * 1.001 or chosen.epochs == 3
    assert 1 <= chosen.max_length <= facts.blueprint.max_length


def test_several_labels_have_a_threshold_that_the_dev_set_chooses():
    config = resolve(task="mine", flags=OWN)
    chosen, sentence = choose(config, _facts([10] * 100, dev_rows=10, is_multilabel=True))
    assert chosen.tune_threshold and "tune_threshold" in sentence
    assert not choose(config, _facts([10] * 100, is_multilabel=True))[0].tune_threshold
    assert not choose(config, _facts([10] * 100, dev_rows=10))[0].tune_threshold


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="There is no recipe 'autos'"):
        resolve(task="mine", recipe="autos", flags=OWN)


def test_a_trial_of_a_search_is_not_chosen_again():
    config = changed(resolve(task="mine", flags=OWN), learning_rate=3e-4)
    assert choose(config, _facts([10] * 100))[0].learning_rate == 3e-4
