"""Can training start here, and if not, what to do: tools/doctor.py.

Looks at Python, torch, the GPU, the toolboxes, the disk and more, and trains one
step of each task. Exit code 0 if training can start, else 1. Leaves nothing behind but
compiled kernels where there is a GPU.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from _command import run

DOCTOR = Path(__file__).resolve().parents[1] / "convnext_dense/commands/doctor"


def main():
    if sys.version_info < (3, 8):  # noqa: UP036  (a doctor meets old Pythons)
        sys.exit("Python 3.8 is the oldest in which the doctor runs; take 3.10 to 3.13")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # The doctor starts itself with this: a check may crash, and others follow.
    parser.add_argument("--check", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()

    doctor = _import_doctor()
    if args.check:
        doctor.check_here(args.check)
    else:
        healthy = doctor.examine([sys.executable, __file__, "--check"])
        sys.exit(0 if healthy else 1)


def _import_doctor():
    """The doctor without the package around it, which needs mmengine."""
    # Under a name of its own: importing a submodule imports the packages around it.
    spec = importlib.util.spec_from_file_location("doctor", DOCTOR / "__init__.py")
    package = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return importlib.import_module("doctor.examination")


if __name__ == "__main__":
    run(main)
