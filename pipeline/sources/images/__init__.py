"""Your own images: what a folder, an archive or parquet files hold, and each image as pixels of one size."""
