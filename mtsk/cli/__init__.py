"""The command line: train, predict, evaluate and look at models without a script."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from mtsk.exceptions import MtskError

__all__ = ["main"]

_FAILED, _STOPPED = 1, 130
# Errors that are told in a line; others are mistakes of ours.
_TOLD = (MtskError, ImportError, ValueError, RuntimeError, MemoryError, OSError)
_HEADS = ["logistic", "ridge", "network", "fcn", "unet"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of those of the process.

    Returns
    -------
    int
        0 where all went well, 1 where something failed, 2 where the command is none,
        130 where Ctrl-C stopped it.
    """
    options = _parser().parse_args(arguments)
    formatted, warnings.formatwarning = warnings.formatwarning, _in_a_line
    try:  # the command's room is opened only now: `mtsk --help` needs no torch
        return int(
            getattr(import_module("mtsk.cli.commands"), options.command)(options)
        )
    except KeyboardInterrupt:
        print("stopped; what was written is kept", file=sys.stderr)
        return _STOPPED
    except BrokenPipeError:  # who read the answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except _TOLD as error:
        print(f"mtsk {options.command}: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"error": str(error)}, ensure_ascii=False))
        return _FAILED
    finally:
        warnings.formatwarning = formatted


def _in_a_line(message: object, *about: object, **more: object) -> str:
    """Return a warning as a person reads it, without the place in our code."""
    return f"mtsk: {message}\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtsk",
        description="Learn several image tasks from one pretrained network.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=text, description=text)
        own.add_argument("--json", action="store_true", help="answer in JSON")
        return own

    labels_help = (
        "a folder of label maps, named as their images, or a .csv with a column "
        "'image' and one for every task; NAME=FOLDER says what the task is called"
    )
    colours_help = (
        "a .csv with columns 'colour' (#rrggbb) and 'class', for label maps in colours"
    )
    limit_help = "refuse images of more pixels (90 megapixels by default)"
    axes_help = (
        "what the axes of TIFF files are, such as ZYX for stacks or CYX for channels, "
        "where the files do not say it"
    )
    own = command("train", "Learn from a folder of images and their labels.")
    own.add_argument("images", help="a folder of images")
    own.add_argument("labels", nargs="+", help=labels_help)
    own.add_argument("--axes", help=axes_help)
    own.add_argument("--max-megapixels", type=_positive, help=limit_help)
    own.add_argument("--classes", metavar="COLOURS.csv", help=colours_help)
    own.add_argument("-o", "--output", required=True, help="the model's file")
    own.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME=TYPE[:OPTION=VALUE]",
        help="what a label is, such as cells=BinaryMask:positive=255",
    )
    own.add_argument(
        "--void", nargs="*", default=[], help="values of maps that mean unlabelled"
    )
    own.add_argument("--head", choices=_HEADS, default="logistic")
    own.add_argument("--structure", choices=["crf"], help="neighbours speak together")
    own.add_argument(
        "--backbone", default="efficientnet_lite0", help="see `mtsk backbones`"
    )
    own.add_argument("--weights", help="a file of the backbone's weights")
    own.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    own.add_argument(
        "--channels",
        type=_channels,
        metavar="{N,N,N|each|pca}",
        help="how images of other than 1 or 3 channels are seen",
    )
    own.add_argument("--holdout", type=float, default=0.2, metavar="SHARE")
    own.add_argument("--seed", type=_seed, default=0)

    own = command("predict", "Write what a model says of images.")
    own.add_argument("model")
    own.add_argument("images", nargs="+", help="images, or folders of them")
    own.add_argument("-o", "--output", required=True, help="a folder")
    own.add_argument("--axes", help=axes_help)
    own.add_argument("--max-megapixels", type=_positive, help=limit_help)
    own.add_argument("--tasks", nargs="+", help="of the model's; all by default")
    own.add_argument(
        "--overlays", action="store_true", help="draw over the images, too"
    )
    own.add_argument("--allow", nargs="+", default=[], help="types of your own to load")

    own = command("evaluate", "Score a model on labelled images.")
    own.add_argument("model")
    own.add_argument("images")
    own.add_argument("labels", nargs="+", help=labels_help)
    own.add_argument("--axes", help=axes_help)
    own.add_argument("--max-megapixels", type=_positive, help=limit_help)
    own.add_argument("--classes", metavar="COLOURS.csv", help=colours_help)
    own.add_argument("--allow", nargs="+", default=[], help="types of your own to load")

    own = command("export", "Write a model as an ONNX graph, for other programs.")
    own.add_argument("model")
    own.add_argument("-o", "--output", required=True, help="such as model.onnx")
    own.add_argument("--tasks", nargs="+", help="of the model's; all by default")

    own = command("describe", "Print a model's card.")
    own.add_argument("model")

    own = command("backbones", "List networks with short names, or others by name.")
    own.add_argument(
        "pattern", nargs="?", default="", help="part of a name: lists all that have it"
    )
    own.add_argument("--download", metavar="NAME", help="fetch a network's weights")

    own = command("demo", "Learn four tasks from made scenes; write a model.")
    own.add_argument("-o", "--output", default="mtsk_demo", help="a folder")
    own.add_argument("--scenes", type=int, default=60)
    return parser


def _channels(text: str) -> str | tuple[int, ...]:
    """Return three channels, or a word for all of them."""
    if text in ("each", "pca"):
        return text
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be three channels, such as 0,1,0, or each, or pca, got {text!r}"
        )
    return tuple(map(int, parts))


def _positive(text: str) -> float:
    """Return a number above 0, infinity among them."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def _seed(text: str) -> int:
    """Return a seed; refuse what NumPy would."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an int, 0 or more, got {text!r}")
    return int(text)
