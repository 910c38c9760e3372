"""Stand-ins for mmcv's compiled ops, from torchvision, PyTorch or Triton.

Each function has the name and the arguments of the compiled op: many write their
result into a tensor that the caller made. Half precision is computed in fp32.
``patches/mmcv_ops`` serves those in ``STAND_INS`` as the module ``mmcv._ext``, and
imports this package only then: importing torchvision takes more than a second.
"""

from .bbox_overlaps import bbox_overlaps
from .border_align import border_align_backward, border_align_forward
from .carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from .deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from .environment import get_compiler_version, get_compiling_cuda_version
from .focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .line_nms import line_nms_forward
from .masked_conv import masked_col2im_forward, masked_im2col_forward
from .nms import nms, nms_match, softnms
from .psa_mask import psamask_backward, psamask_forward
from .roi_align import roi_align_backward, roi_align_forward
from .roi_align_rotated import roi_align_rotated_backward, roi_align_rotated_forward
from .roi_pool import roi_pool_backward, roi_pool_forward
from .rotated_iou import box_iou_quadri, box_iou_rotated, nms_quadri, nms_rotated
from .sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

STAND_INS = (
    nms,
    softnms,
    nms_match,
    nms_rotated,
    nms_quadri,
    line_nms_forward,
    bbox_overlaps,
    box_iou_rotated,
    box_iou_quadri,
    roi_align_forward,
    roi_align_backward,
    roi_align_rotated_forward,
    roi_align_rotated_backward,
    roi_pool_forward,
    roi_pool_backward,
    deform_roi_pool_forward,
    deform_roi_pool_backward,
    border_align_forward,
    border_align_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    masked_im2col_forward,
    masked_col2im_forward,
    carafe_forward,
    carafe_backward,
    carafe_naive_forward,
    carafe_naive_backward,
    psamask_forward,
    psamask_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    softmax_focal_loss_forward,
    softmax_focal_loss_backward,
    sync_bn_forward_mean,
    sync_bn_forward_var,
    sync_bn_forward_output,
    sync_bn_backward_param,
    sync_bn_backward_data,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)
