"""An index of item vectors: compact codes in memory, dense vectors on disk, exact where that is faster."""
