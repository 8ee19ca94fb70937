"""Models: pure modules, embedded inputs in, logits out. One file each."""
