"""Xinglin 杏林: Chinese medical language models, from a hospital's notes to a served and explained model."""

import os

__version__ = "0.1.0"

# Nothing is fetched behind anyone's back: the libraries below us would ask their hub for kernels and templates.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
