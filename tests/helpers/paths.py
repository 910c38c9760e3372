"""The folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout
SHARED = ROOT.parent / "shared"  # samples of COCO and ADE20K; not on every machine
