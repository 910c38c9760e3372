"""The tests; what is here runs before PyTorch is imported."""

import os

# Its threads spin while they wait, which takes the core from whatever runs beside.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
