"""The metric ladder: images -> features -> statistics -> distance.

`bench.config.metrics` says what there is (free of torch), `extractors` turn images into features,
`statistics` condenses features, `fid`, `kernel`, `neighbours` and `patches` compare, `reference`
keeps the real side, and `evaluate` runs the whole in one pass over the generated images.
"""

from bench.config.metrics import METRICS, Metric, check_metrics, metric_keys

__all__ = ["METRICS", "Metric", "check_metrics", "metric_keys"]
