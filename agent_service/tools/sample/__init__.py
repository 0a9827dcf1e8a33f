"""The built-in sample dataset and its generator."""
