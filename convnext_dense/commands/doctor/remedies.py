"""Errors that broken environments raise, and what helps.

``of`` finds a remedy by an error's words. Checks that know better say so themselves.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

FRESH = (
    "make a new environment and install there, in a clone of convnext_dense:\n"
    "pip install -e '.[onedl]'"
)
PAIR = (
    "torch and torchvision are not of one build; install both in one command, both "
    "pinned or neither:\n"
    "pip install --force-reinstall torch torchvision"
)
MMCV = (
    "without compiled ops, NMS and RoIAlign come from torchvision:\n"
    "maintained stack: pip install --force-reinstall --no-deps --no-cache-dir "
    "onedl-mmcv\n"
    "classic stack:    pip uninstall -y mmcv; pip install mmcv-lite\n"
    "To build them for this torch instead: MMCV_WITH_OPS=1 pip install "
    "--force-reinstall --no-deps --no-build-isolation onedl-mmcv (or mmcv)"
)
NUMPY = (
    "a package was compiled for another major version of numpy. Update it, or\n"
    "pip install 'numpy<2'"
)
MEMORY = "free memory: end other programs, or give the container or the job more of it"
SHARED_MEMORY = (
    "data-loader workers share batches through /dev/shm; give a container more: docker "
    "run --shm-size=8g (or --ipc=host)\n"
    "or train without workers: --cfg-options train_dataloader.num_workers=0 "
    "train_dataloader.persistent_workers=False, the same of val_dataloader"
)
TRITON = "pip install --force-reinstall triton   (the version that this torch asks for)"
TEMPORARY = "export TMPDIR=/tmp, or to another short path"
UNKNOWN = (
    "the message above is not one the doctor knows. If a new environment (pip install "
    "-e '.[onedl]') has it too,\n"
    "open an issue with this whole output"
)

# Words of an error, in the order in which they are looked for.
KNOWN = (
    (r"torchvision::nms|Couldn't load custom C\+\+ ops|'torchvision::", PAIR),
    (r"torchvision[\w./\\]*\.(so|pyd|dll)|torchvision.*undefined symbol", PAIR),
    (
        r"mmcv\W+_ext|module _ext|importing _ext|mmcv.*undefined symbol",
        "mmcv's ops were compiled for another torch; " + MMCV,
    ),
    (
        r"implementation for device cuda.* not found|not compiled with (GPU|CUDA)",
        "mmcv's ops were compiled without CUDA; " + MMCV,
    ),
    (
        r"MMCV==|MMEngine==",
        "the toolbox does not accept this version of mmcv or mmengine: install one "
        "between those that the message names\nor " + FRESH,
    ),
    (
        r"numpy\.\w+ size changed|NumPy 1\.x|_ARRAY_API not found|"
        r"Numpy is not available|numpy\.core\.multiarray failed",
        NUMPY,
    ),
    (
        r"lib(GL|gthread|glib|xcb|SM|Xext|Xrender)[\w.-]*\.so",
        "opencv's window library is missing here; take the opencv without windows:\n"
        "pip uninstall -y opencv-python opencv-python-headless; "
        "pip install opencv-python-headless\n"
        "or, as root: apt-get install libgl1 libglib2.0-0",
    ),
    (
        r"GLIBCXX_|CXXABI_",
        "the C++ library found first is older than the packages' own; with conda:\n"
        "conda install -c conda-forge libstdcxx-ng",
    ),
    (
        r"GLIBC_",
        "this system is older than the installed packages allow: take a newer system "
        "or container, or older packages",
    ),
    (r"triton\W+_C|libtriton|triton[\w./\\]*\.(so|pyd)", TRITON),
    (
        r"no kernel image is available|not compatible with the current PyTorch",
        "this torch was not built for this GPU's compute capability; choose a build "
        "that is at https://pytorch.org/get-started/locally",
    ),
    (
        r"CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        "another program holds the GPU's memory: nvidia-smi names it",
    ),
    (r"DefaultCPUAllocator|MemoryError|Cannot allocate memory", MEMORY),
    (
        r"[Bb]us error|out of shared memory|shared memory object|</torch_|/dev/shm",
        SHARED_MEMORY,
    ),
    (r"No space left on device|Disk quota exceeded", "free space on that disk"),
    (r"AF_UNIX path too long", TEMPORARY),
    (r"Too many open files|ancdata", "ulimit -n 4096"),
    (
        r"lib(cu|nv|torch|c10)\w*[\w.-]*\.(so|dll)|CUDNN_STATUS_\w+|"
        r"module 'torch' has no attribute",
        "torch and its libraries are not of one build:\n"
        "pip install --force-reinstall torch torchvision\n"
        "An LD_LIBRARY_PATH that names another CUDA's folders does this too: unset it",
    ),
)

# Import name -> what to install, where they differ.
INSTALL = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "torch": "torch torchvision",
    "yaml": "pyyaml",
}
STACK = ("mmengine", "mmcv", "mmdet", "mmseg")


def of(error: BaseException | str) -> str:
    """A remedy for an exception, or for what a process wrote before it died."""
    errors = [] if isinstance(error, str) else list(_chain(error))
    words = "\n".join(map(_words, errors)) or error
    for pattern, remedy in KNOWN:
        if re.search(pattern, words):
            return remedy
    for error in errors:
        if isinstance(error, ModuleNotFoundError) and error.name:
            top, *below = error.name.split(".")
            if below:
                return f"{top} is incomplete or of another version: {FRESH}"
            return FRESH if top in STACK else f"pip install {INSTALL.get(top, top)}"
    return UNKNOWN


def describe(error: BaseException) -> str:
    """The exception, its first cause, and the place that raised that."""
    *_, cause = _chain(error)
    words = [_words(error)] if cause is error else [_words(error), _words(cause)]
    found = ", because of ".join(words)
    for frame in traceback.extract_tb(cause.__traceback__)[-1:]:
        found += f" (at {frame.filename}:{frame.lineno})"
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _words(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:400]}{' ...' if text[400:] else ''}"
