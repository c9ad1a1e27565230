"""The device that TensorFlow or JAX computes on: the first GPU if there is one, else the CPU."""

from dataclasses import dataclass

from isinglass.backends.cpu import available_cores, describe_cpu


@dataclass(frozen=True)
class Device:
    """A device; `description` is for the result."""

    is_gpu: bool
    description: str


def tensorflow_device() -> Device:
    """Return TensorFlow's device; fp32 products on a GPU are set to be fp32, not TF32."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_tensor_float_32_execution(False)
        details = tf.config.experimental.get_device_details(gpus[0])
        return Device(True, str(details.get("device_name", gpus[0].name)))
    threads = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
    return Device(False, describe_cpu(threads))


def jax_device() -> Device:
    """Return JAX's device."""
    import jax

    device = jax.devices()[0]
    if device.platform == "gpu":
        return Device(True, str(device.device_kind))
    return Device(False, describe_cpu(available_cores()))
