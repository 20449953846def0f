"""Measurements of Xinglin beside its peers: `python -m bench TASK` (bench/__main__.py lists the tasks)."""
