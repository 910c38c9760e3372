"""Stand-ins from torchvision for mmcv's compiled ops.

mmdet's and mmseg's modules import ``mmcv.ops``, which imports the compiled
module ``mmcv._ext``. mmcv installed from source without torch at hand, and
mmcv-lite, have none: ``No module named 'mmcv._ext'``. ``install`` puts a finder
at the end of Python's import path, so a compiled ``mmcv._ext``, wherever it is,
is always found before it; where there is none, this module answers: NMS,
soft-NMS, RoIAlign and the focal loss work, any other op raises when called.
"""

import importlib.abc
import importlib.machinery
import sys
import types

import torch
import torchvision
from mmengine.logging import print_log
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

NAME = "mmcv._ext"


def install() -> None:
    """Let ``mmcv._ext`` be found here wherever mmcv was installed without it."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == NAME:
            return importlib.machinery.ModuleSpec(NAME, self, origin=__file__)
        return None

    def create_module(self, spec):
        return _StandIns(spec.name, __doc__)

    def exec_module(self, module):
        vars(module).update({op.__name__: op for op in STAND_INS})
        print_log(
            "mmcv has no compiled ops here: NMS, soft-NMS, RoIAlign and the focal loss "
            "come from torchvision",
            logger="current",
        )


class _StandIns(types.ModuleType):
    def __getattr__(self, name):
        # mmcv asks for every op's name when it is imported, for few in earnest.
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(
                f"mmcv's op {name!r} has no stand-in in convnext_dense and the "
                "installed mmcv was built without compiled ops. Install one that has "
                "them: with the maintained stack, `MMCV_WITH_OPS=1 pip install "
                "--no-build-isolation --force-reinstall --no-deps onedl-mmcv` in an "
                "environment that has torch and a compiler; with the classic stack, "
                "`pip install openmim && mim install mmcv`"
            )

        return missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices kept, best score first. Shapes: (N, 4) xyxy, (N,) -> (K,)."""
    if offset:  # a box of that era ends inside its last pixel
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes.float(), scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., arXiv 1704.04503, figure 2).

    ``method`` says what an overlapping box's score is multiplied by: 0 for zero,
    1 for one minus the IoU, 2 for a Gaussian of variance ``sigma``. Boxes that
    fall below ``min_score`` go. Writes boxes and new scores, best first, into
    ``dets`` (N, 5) and returns the kept indices (K,).
    """
    left, scores = torch.arange(len(boxes)), scores.clone()
    kept = []
    while len(left):
        best = int(scores[left].argmax())
        i = left[best]
        left = torch.cat((left[:best], left[best + 1 :]))
        dets[len(kept)] = torch.cat((boxes[i], scores[i : i + 1]))
        kept.append(i)
        iou = _iou(boxes[i], boxes[left], offset)
        if method == 0:
            weight = (iou < iou_threshold).to(iou.dtype)
        elif method == 1:
            weight = torch.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            weight = torch.exp(-(iou**2) / sigma)
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    lower = torch.maximum(box[:2], boxes[:, :2])
    upper = torch.minimum(box[2:], boxes[:, 2:])
    overlap = (upper - lower + offset).clamp(min=0).prod(-1)
    area, areas = ((b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (box, boxes))
    return overlap / (area + areas - overlap)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write RoIAlign (Mask R-CNN, arXiv 1703.06870) into ``output``.

    Shapes: (N, C, H, W), (R, 5) as (image, x1, y1, x2, y2) -> (R, C,
    aligned_height, aligned_width). Half precision is computed in fp32.
    """
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' has no stand-in in convnext_dense; use "
            "pool_mode='avg', which is every toolbox config's, or an mmcv with "
            "compiled ops"
        )
    exact = torch.promote_types(input.dtype, torch.float32)
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(exact),
            rois.to(exact),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of ``roi_align_forward`` into ``grad_input`` (N, C, H, W)."""
    exact = torch.promote_types(grad_output.dtype, torch.float32)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output.to(exact),
            rois.to(exact),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss (arXiv 1708.02002, equation 5) into ``output``.

    Shapes: logits (N, C), classes (N,) of which C means background -> (N, C).
    mmdet calls the op on a GPU only, and never with class weights.
    """
    output.copy_(_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each loss by its logit into ``grad_input`` (N, C)."""
    with torch.enable_grad():
        logits = input.detach().requires_grad_()
        loss = _focal_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, logits)[0])


def _focal_loss(logits, target, weight, gamma, alpha) -> Tensor:
    if weight.numel():
        raise NotImplementedError(
            "mmcv's sigmoid_focal_loss with class weights has no stand-in in "
            "convnext_dense; leave out the weights or install mmcv with compiled ops"
        )
    classes = logits.shape[1]
    truth = F.one_hot(target, classes + 1)[:, :classes]
    return sigmoid_focal_loss(logits.float(), truth.float(), alpha, gamma)


def get_compiler_version() -> str:
    """Asked by the toolboxes' environment report."""
    return "none (stand-ins of convnext_dense)"


def get_compiling_cuda_version() -> str:
    """Asked by the toolboxes' environment report."""
    return "none (stand-ins of convnext_dense)"


STAND_INS = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)
