"""What the images are: figures, exact duplicates and near-duplicates."""
