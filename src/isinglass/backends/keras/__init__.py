"""Keras 3 on TensorFlow or JAX: the only folder that imports keras, tensorflow or jax."""
