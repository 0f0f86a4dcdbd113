"""Arguments of benchmarks that measure a model on the CPU or on a GPU."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable


def parser_of(description: str | None, sizes: Iterable[str]) -> argparse.ArgumentParser:
    """Return a parser with --device and --size; the caller adds its own arguments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=list(sizes), help="'cpu', or 2b on a GPU")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments, fill in the size for the device, and exit if the device is missing."""
    arguments = parser.parse_args()

    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device.")
    arguments.size = arguments.size or ("cpu" if arguments.device == "cpu" else "2b")
    return arguments
