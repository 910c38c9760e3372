"""Remedies for the errors that broken environments raise.

``remedy_of`` finds a remedy by the text of an error. Checks that know a better one give
it themselves.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

FRESH = (
    "make a new environment and install there:\n"
    "pip install 'convnext-dense[onedl]'   (in a clone: pip install -e '.[onedl]')"
)
PAIR = (
    "torch and torchvision are of different builds; install both in one command, both "
    "with a version or both without:\n"
    "pip install --force-reinstall torch torchvision"
)
MMCV = (
    "use mmcv without compiled ops; this package then computes them:\n"
    "maintained stack: pip install --force-reinstall --no-deps --no-cache-dir "
    "onedl-mmcv\n"
    "classic stack:    pip uninstall -y mmcv; pip install mmcv-lite\n"
    "To compile the ops for this torch instead: MMCV_WITH_OPS=1 pip install "
    "--force-reinstall --no-deps --no-build-isolation onedl-mmcv (or mmcv)"
)
NUMPY = (
    "a package was compiled for another major version of numpy. Update it, or\n"
    "pip install 'numpy<2'"
)
MEMORY = "end other programs, or give the container or the job more memory"
SHARED_MEMORY = (
    "data-loader workers pass batches through /dev/shm; give a container more of it: "
    "docker run --shm-size=8g (or --ipc=host)\n"
    "or train without workers: --cfg-options train_dataloader.num_workers=0 "
    "train_dataloader.persistent_workers=False, and the same for val_dataloader"
)
TRITON = "pip install --force-reinstall triton   (the version that this torch requires)"
TEMPORARY = "export TMPDIR=/tmp, or another short path"
UNKNOWN = (
    "the doctor does not know this message. If a new environment (pip install "
    "'convnext-dense[onedl]') shows it too,\n"
    "open an issue with the whole output of the doctor"
)

# Patterns of an error's text and their remedies. The first that matches counts.
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
        "the toolbox does not accept this version of mmcv or mmengine: install one in "
        "the range that the message names\nor " + FRESH,
    ),
    (
        r"numpy\.\w+ size changed|NumPy 1\.x|_ARRAY_API not found|"
        r"Numpy is not available|numpy\.core\.multiarray failed",
        NUMPY,
    ),
    (
        r"lib(GL|gthread|glib|xcb|SM|Xext|Xrender)[\w.-]*\.so",
        "opencv's window library is missing; install opencv without windows:\n"
        "pip uninstall -y opencv-python opencv-python-headless; "
        "pip install opencv-python-headless\n"
        "or, as root: apt-get install libgl1 libglib2.0-0",
    ),
    (
        r"GLIBCXX_|CXXABI_",
        "the system's C++ library is older than the packages require; with conda:\n"
        "conda install -c conda-forge libstdcxx-ng",
    ),
    (
        r"GLIBC_",
        "this system is older than the installed packages allow: use a newer system "
        "or container, or older packages",
    ),
    (r"triton\W+_C|libtriton|triton[\w./\\]*\.(so|pyd)", TRITON),
    (
        r"no kernel image is available|not compatible with the current PyTorch",
        "this torch was not built for this GPU's compute capability; choose a build "
        "for it at https://pytorch.org/get-started/locally",
    ),
    (
        r"CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED",
        "another program uses the GPU's memory: nvidia-smi names it",
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
        "torch and its libraries are of different builds:\n"
        "pip install --force-reinstall torch torchvision\n"
        "An LD_LIBRARY_PATH with folders of another CUDA also causes this: unset it",
    ),
)

# Import name -> name of the package to install, where they differ.
PACKAGES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "torch": "torch torchvision",
    "yaml": "pyyaml",
}
STACK = ("mmengine", "mmcv", "mmdet", "mmseg")


def remedy_of(error: BaseException | str) -> str:
    """The remedy for an exception, or for the last output of a process that died."""
    if isinstance(error, str):
        causes, text = [], error
    else:
        causes = list(_chain(error))
        text = "\n".join(map(_text, causes))
    for pattern, remedy in KNOWN:
        if re.search(pattern, text):
            return remedy
    for cause in causes:
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            top, *submodules = cause.name.split(".")
            if submodules:
                return f"{top} is incomplete or has another version: {FRESH}"
            return FRESH if top in STACK else f"pip install {PACKAGES.get(top, top)}"
    return UNKNOWN


def describe(error: BaseException) -> str:
    """The exception, its first cause, and the line of code that raised the cause."""
    *_, cause = _chain(error)
    texts = [_text(error)] if cause is error else [_text(error), _text(cause)]
    description = ", because of ".join(texts)
    for frame in traceback.extract_tb(cause.__traceback__)[-1:]:
        description += f" (at {frame.filename}:{frame.lineno})"
    return description


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its cause, the cause's cause and so on."""
    while error is not None:
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _text(error: BaseException) -> str:
    """An exception's type and the first 400 characters of its message."""
    text = str(error)
    return f"{type(error).__name__}: {text[:400]}{' ...' if text[400:] else ''}"
