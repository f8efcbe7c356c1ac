"""Exact sums, the statistics computed from them, and the schemes that choose a mean and std."""
