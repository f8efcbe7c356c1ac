"""Bytes from outside to images and labels: the registry of datasets, fetching, decoding."""
