"""``python -m recsys``, for torchrun and for machines without the script on the path."""

from recsys.cli import main

if __name__ == "__main__":
    main()
