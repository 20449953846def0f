"""Xinglin 杏林: Chinese medical language models, from a hospital's notes to a served and explained model."""

__version__ = "0.1.0"
