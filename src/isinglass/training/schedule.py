"""The learning rate of each step."""

from isinglass.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of step `step`, counted from 0 over all epochs.

    It rises linearly from 0 over the first `warmup_ratio` of all steps (rounded up). Then it falls linearly so that it would
    reach 0 at step `total_steps`, or it stays constant.

    Example: 4 steps at 2e-5 without warm-up: 2e-5, 1.5e-5, 1e-5, 5e-6.
    """
    warmup = -int(-config.warmup_ratio * total_steps // 1)
    if step < warmup:
        return config.learning_rate * step / warmup
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (total_steps - step) / (total_steps - warmup)
