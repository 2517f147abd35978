"""Training images: reading them from wherever they lie, packing them, and batches in order."""
