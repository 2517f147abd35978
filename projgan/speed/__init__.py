"""Faster forms of a training step (`train.fast`, `train.compile`), and where its time goes."""
