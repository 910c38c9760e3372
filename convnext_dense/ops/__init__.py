"""Stand-ins for mmcv's compiled ops, from torchvision, PyTorch or Triton.

Each function has the name and the arguments of the compiled op: many write their
result into a tensor that the caller made. ``patches/mmcv_ops`` serves those in
``STAND_INS`` as the module ``mmcv._ext``, and imports this package only then: importing
torchvision takes more than a second.
"""

from .deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from .environment import get_compiler_version, get_compiling_cuda_version
from .focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from .nms import nms, softnms
from .roi_align import roi_align_backward, roi_align_forward

STAND_INS = (
    nms,
    softnms,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)
