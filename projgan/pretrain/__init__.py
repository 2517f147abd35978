"""Makes the lab networks' weights again: `python -m projgan.pretrain [names...] [--seeds 0 1]`."""
