"""Convolution output channels, with everything coupled to them."""
