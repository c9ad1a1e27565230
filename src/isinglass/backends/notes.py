"""Notes on slower paths, which a result records."""


def slow_bf16(device: str) -> str:
    """Return the note for a device without bf16 instructions."""
    return f"bf16 has no hardware support on {device}: it runs, slowly."


def widened_bf16(device: str) -> str:
    """Return the note for a CPU without bf16 instructions, where bf16 products are computed in fp32."""
    return (
        f"bf16 has no hardware support on {device}: its products run in fp32 and are rounded, which is no faster than fp32."
    )
