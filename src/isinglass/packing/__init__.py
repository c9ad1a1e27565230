"""Plans and packed batches."""

from isinglass.packing.batch import PackedBatch, pack_flat, pack_rows, row_counts
from isinglass.packing.plan import num_steps, plan_epoch, plan_evaluation, shard_step

__all__ = ["PackedBatch", "num_steps", "pack_flat", "pack_rows", "plan_epoch", "plan_evaluation", "row_counts", "shard_step"]
