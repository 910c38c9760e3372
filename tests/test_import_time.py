"""``import convnext_dense`` loads no library that is slow to import."""

import json

from .helpers.running import shell

NEW = """
import json, sys
import torch, mmengine, mmengine.runner
before = set(sys.modules)
import convnext_dense
libraries = {name.partition(".")[0] for name in sys.modules.keys() - before}
torchs = {name for name in sys.modules.keys() - before if name.startswith("torch._")}
print(json.dumps([sorted(libraries), sorted(torchs)]))
"""


def test_no_slow_library_is_loaded():
    """Beside those that ``import torch, mmengine.runner`` loads already."""
    done = shell("-c", NEW)
    assert done.returncode == 0, done.stderr
    libraries, torchs = json.loads(done.stdout.splitlines()[-1])
    slow = {"matplotlib", "pycocotools", "torchvision", "transformers", "timm"}
    slow |= {"mmcv", "mmdet", "mmseg", "triton", "cv2", "huggingface_hub", "rich"}
    assert not slow.intersection(libraries)
    # The compiler of torch alone takes two seconds.
    compiler = "torch._dynamo", "torch._inductor", "torch._functorch"
    assert not [name for name in torchs if name.startswith(compiler)]
