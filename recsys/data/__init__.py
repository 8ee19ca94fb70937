"""Parquet in and out: scan, split, batch; the prepared dataset; the synthetic log."""
