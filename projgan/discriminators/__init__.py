"""Discriminators: the paper's, on projected features at several scales, and those beside it."""
