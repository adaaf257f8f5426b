"""The small encoder and generator that stand in for e4e and StyleGAN2."""
