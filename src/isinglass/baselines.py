"""Simple models beside the scores of a run: what they score, how far the run is above them, and how that is said."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isinglass.metrics import Metric

TFIDF: Final = "tf-idf"
FROZEN: Final = "frozen-encoder"
TITLES: Final[Mapping[str, str]] = {TFIDF: "TF-IDF", FROZEN: "frozen encoder"}
MEANINGS: Final[Mapping[str, str]] = {
    TFIDF: "a linear model on the TF-IDF weights of words and pairs of words",
    FROZEN: "a linear model on the vectors of the same encoder without fine-tuning",
}
ADVICE: Final = (
    "try more epochs or a higher learning rate (`isinglass tune` searches both), or more rows to train and score on."
)
SIGNIFICANCE: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the run scores above a baseline on the same examples; all None where a score is not defined.

    Attributes:
        metric: the one that picks the best epoch.
        mean: the score of the run less that of the baseline.
        low, high: the interval of 95 %.
        p_value: two-sided.
        test: what the interval and p come from, in words.
    """

    metric: str
    mean: float | None
    low: float | None
    high: float | None
    p_value: float | None
    test: str

    @property
    def is_better(self) -> bool:
        """Whether the run is better, and p is below 0.05."""
        mean, p_value = self.mean, self.p_value
        if mean is None or p_value is None or p_value >= SIGNIFICANCE:
            return False
        return mean < 0 if Metric(self.metric).lower_is_better else mean > 0

    def text(self) -> str:
        """Return the difference with its interval and p: `+7.30 (95 % +5.90 to +8.70), p < 0.001`."""
        metric = Metric(self.metric)
        mean, low, high = (metric.text(value, signed=True) for value in (self.mean, self.low, self.high))
        if self.p_value is None:
            return mean
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return f"{mean} (95 % {low} to {high}), {p_value}"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A simple model that was trained on the rows of a run.

    Attributes:
        metrics: split -> metric -> value; None for NaN.
        seconds: of training and predicting, the choice of its settings included. Vectors of the frozen encoder that a solved
            head had needed already are not in it.
        settings: name -> value.
        differences: split -> how far the run is above it.
    """

    metrics: dict[str, dict[str, float | None]]
    seconds: float
    settings: dict[str, str | int | float]
    differences: dict[str, Gain]

    def score(self, split: str, metric: str) -> float | None:
        """Return a value; None where it is not known."""
        return self.metrics.get(split, {}).get(metric)


def title_of(name: str) -> str:
    """Return the name of a baseline as tables show it."""
    return TITLES.get(name, name)


def _in_words(name: str) -> str:
    return "the frozen encoder" if name == FROZEN else title_of(name)


def sentences(baselines: Mapping[str, Baseline]) -> Iterator[str]:
    """Yield how the run compares with each baseline on the last scored split: the test set, where one is labelled."""
    for name, baseline in baselines.items():
        if baseline.differences:
            split = [*baseline.differences][-1]
            yield _sentence(_in_words(name), baseline.seconds, split, baseline.differences[split])


def verdicts(baselines: Mapping[str, Baseline]) -> Iterator[str]:
    """Yield the sentences, and what to do where the run is not better than each baseline."""
    yield from sentences(baselines)
    gains = {name: [*baseline.differences.values()][-1:] for name, baseline in baselines.items()}
    unbeaten = [_in_words(name) for name, last in gains.items() if not all(gain.is_better for gain in last)]
    if unbeaten:
        yield f"Fine-tuning is not shown to be better than {' and '.join(unbeaten)}: {ADVICE}"


def _sentence(title: str, seconds: float, split: str, gain: Gain) -> str:
    metric = Metric(gain.metric)
    ending = f"on {split}, {metric.full_name}; it took {seconds:.1f} s."
    if gain.mean is None or gain.low is None or gain.high is None or gain.p_value is None:
        return f"Not comparable with {title}, because a score is not defined: {ending}"
    better = metric.scale * (-1 if metric.lower_is_better else 1)
    is_worse = better * gain.mean < 0 and gain.p_value < SIGNIFICANCE
    factor = -better if is_worse else better
    low, high = sorted((factor * gain.low, factor * gain.high))
    digits, unit = (".4g", "") if metric.lower_is_better else (".1f", " points")
    amount = f"{factor * gain.mean:z{digits}}{unit} (95 % {low:z{digits}} to {high:z{digits}})"
    if gain.p_value >= SIGNIFICANCE:
        return f"No clear difference from {title}: {amount} {ending}"
    return f"{'Worse' if is_worse else 'Better'} than {title} by {amount} {ending}"
