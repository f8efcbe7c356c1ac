"""Image classification datasets as normalized, hashed .npy shards."""
