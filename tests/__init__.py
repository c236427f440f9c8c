"""Behaviour that users of WAP rely on, proved with real parts wherever the machine has them."""
