"""Read tables of the user's own: CSV, TSV, JSON Lines and Parquet, compressed or not."""
