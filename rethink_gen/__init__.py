"""Understanding deep learning requires rethinking generalization, in JAX and Flax."""
