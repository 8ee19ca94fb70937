"""The blocks of a run file, one module each; ``recsys.config`` puts them together."""
