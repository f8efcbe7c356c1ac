"""Writing shard sets: .npy files by tasks, and normalized ones from raw ones."""
