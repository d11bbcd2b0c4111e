"""What lies at a path: a run and the state of its steps, a dataset, a Parquet file."""
