"""`fts export`, `fts verify` and `fts import`: Parquet files from a database, proven, and back."""
