import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = re.search(
    r'__version__ = "(.+)"', (root / "convnext_dense/version.py").read_text()
)[1]

EXPORT = ["onnx", "onnxruntime", "onnxscript"]  # ONNX files, and running them

setup(
    name="convnext_dense",
    version=version,
    description="ConvNeXt backbones for MMDetection and MMSegmentation",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["convnext_dense", "convnext_dense.*"]),
    package_data={
        "convnext_dense": ["py.typed"],
        "convnext_dense.models.fused.gpu": ["cuda/*"],
        "convnext_dense.projects.imagenet_s": ["categories.txt"],
        "convnext_dense.reports.pages": ["*.html"],
    },
    python_requires=">=3.10",
    # Unpinned: pip pairs torch and torchvision by itself, and must not replace
    # the torch that someone's compiled ops were built for.
    install_requires=[
        "huggingface_hub",
        "jinja2",
        "numpy",
        "pillow",
        "pyyaml",
        "safetensors",
        "torch",
        "torchvision",
    ],
    extras_require={
        # Two stacks with the same import names: one environment takes one of them.
        "onedl": [
            "onedl-mmcv>=2.3,<3",
            "onedl-mmdetection>=3.5,<4",
            "onedl-mmengine>=0.10.10,<0.11",
            "onedl-mmsegmentation>=1.4,<2",
        ],
        "openmmlab": [
            "ftfy",  # imported by mmsegmentation, not asked for by it
            "mmcv-lite>=2.0.1,<2.2",
            "mmdet>=3.3,<4",
            "mmengine>=0.10.4,<0.11",
            "mmsegmentation>=1.2.2,<2",
            "regex",
        ],
        "export": EXPORT,
        "dev": [
            *EXPORT,
            "mypy>=1.11",
            "pre-commit>=3",
            "pytest>=7.3",
            "pytest-cov>=5",
            "pytest-xdist>=3.8",
            "ruff>=0.6",
            "timm>=1",
            "transformers>=4.56",
        ],
    },
)
