"""Sets of pixels in the formats of other libraries: PNG files with labels in parquet, WebDataset or MDS files."""
