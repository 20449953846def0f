"""Puts tests/ on the path, so that tests at any depth find `tiny_models`."""
