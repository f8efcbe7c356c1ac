"""Write shard sets: .npy files in parallel, and normalized sets from raw ones."""
