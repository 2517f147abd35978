"""Projected GANs: the science. Trains one configuration and knows nothing of benchmarks."""

__version__ = "0.1.0"
