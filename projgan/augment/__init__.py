"""Augmentation of what a discriminator sees: of images, fixed or adaptive, and of features."""
