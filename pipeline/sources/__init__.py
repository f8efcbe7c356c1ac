"""Turn bytes from outside into images and labels: the registry of datasets, fetching, decoding."""
