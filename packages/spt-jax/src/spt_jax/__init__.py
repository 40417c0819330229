"""Self-supervised pretraining in JAX / Flax NNX with the same run registry, free of torch."""
