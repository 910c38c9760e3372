"""Multi-scale deformable attention that can be exported with dynamic sizes.

The toolboxes put the sizes of the feature maps into a tensor and read them back as
numbers. A trace cannot follow that. The modules here do the same with the maps' own
sizes: ``spatial_shapes`` is a list of heights and widths.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sizes = Sequence[tuple[int, int]]


class DeformableAttention(nn.Module):
    """mmcv's ``MultiScaleDeformableAttention`` (arXiv 2010.04159, equation 3).

    Args:
        attention: mmcv's module, whose layers this module uses.
    """

    def __init__(self, attention: Any):
        super().__init__()
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.value_proj = attention.value_proj
        self.output_proj = attention.output_proj
        self.grid = (attention.num_heads, attention.num_levels, attention.num_points)
        self.batch_first = attention.batch_first

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Sizes = (),
        **kwargs: Any,
    ) -> Tensor:
        """Sample the value around each reference point, and add it to the identity.

        Shapes: query, query_pos and identity (N, Q, C); value (N, S, C), all cells of
        all levels; key_padding_mask (N, S), true for padding; reference_points
        (N, Q, levels, 2) as x, y or (N, Q, levels, 4) as x, y, w, h, from 0 to 1
        -> (N, Q, C). Without ``batch_first``, Q or S comes before N.
        """
        from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

        assert reference_points is not None
        value = query if value is None else value
        identity = query if identity is None else identity
        if query_pos is not None:
            query = query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        heads, levels, points = self.grid
        value = self.value_proj(value)
        if key_padding_mask is not None:
            value = value.masked_fill(key_padding_mask[..., None], 0)
        offsets = self.sampling_offsets(query).unflatten(-1, (*self.grid, 2))
        weights = self.attention_weights(query).unflatten(-1, (heads, levels * points))
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 2:
            sizes = [_numbers(query, width, height) for height, width in spatial_shapes]
            locations = reference + offsets / torch.stack(sizes)[:, None]
        else:
            centre, sides = reference.split(2, -1)
            locations = centre + offsets / points * sides * 0.5
        sampled = multi_scale_deformable_attn_pytorch(
            value.unflatten(-1, (heads, -1)),
            spatial_shapes,
            locations,
            weights.softmax(-1).unflatten(-1, (levels, points)),
        )
        output = self.output_proj(sampled)
        return (output if self.batch_first else output.transpose(0, 1)) + identity


class PixelDecoder(nn.Module):
    """mmdet's ``MSDeformAttnPixelDecoder`` (Mask2Former, arXiv 2112.01527, section 3).

    Args:
        decoder: mmdet's module, whose layers this module uses.
    """

    def __init__(self, decoder: Any):
        super().__init__()
        self.decoder = decoder

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mix the levels of a pyramid.

        Shapes: (N, C_i, H_i, W_i), the largest map first -> the mask features
        (N, C, H_0, W_0) and maps (N, C, H_i, W_i), the smallest first.
        """
        decoder = self.decoder
        levels = decoder.num_encoder_levels
        largest_first = list(feats)
        encoded = largest_first[: -levels - 1 : -1]
        sizes = [map_.shape[-2:] for map_ in encoded]
        tokens, positions, points = [], [], []
        for level, map_ in enumerate(encoded):
            tokens.append(_flat(decoder.input_convs[level](map_)))
            position = decoder.postional_encoding(None, input=map_)
            positions.append(_flat(position) + decoder.level_encoding.weight[level])
            height, width = sizes[level]
            points.append(centres(height, width, map_))
        reference = torch.cat(points)[None, :, None].expand(
            map_.shape[0], -1, levels, -1
        )
        memory = decoder.encoder(
            query=torch.cat(tokens, 1),
            query_pos=torch.cat(positions, 1),
            key_padding_mask=None,
            spatial_shapes=sizes,
            level_start_index=None,
            valid_ratios=None,
            reference_points=reference,
        )
        counts = [height * width for height, width in sizes]
        maps = [
            cells.transpose(1, 2).unflatten(2, size)
            for cells, size in zip(memory.split(counts, 1), sizes, strict=True)
        ]
        # mmdet takes the layers by the level's number, as here.
        for level in range(len(largest_first) - levels - 1, -1, -1):
            lateral = decoder.lateral_convs[level](largest_first[level])
            larger = F.interpolate(maps[-1], lateral.shape[-2:], mode="bilinear")
            maps.append(decoder.output_convs[level](lateral + larger))
        return decoder.mask_feature(maps[-1]), maps[: decoder.num_outs]


def replace_deformable(model: nn.Module) -> None:
    """Replace what reads sizes from a tensor inside ``model``."""
    # By name: the import of mmcv's ops takes a second, and few models need them.
    modules: dict[str, type[nn.Module]] = {
        "MSDeformAttnPixelDecoder": PixelDecoder,
        "MultiScaleDeformableAttention": DeformableAttention,
    }
    parent: Any
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            replacement = modules.get(type(child).__name__)
            if replacement and not isinstance(parent, PixelDecoder):
                setattr(parent, name, replacement(child))
        if type(parent).__name__ == "DeformableDetrTransformerEncoder":
            parent.get_encoder_reference_points = _reference_points
        if hasattr(parent, "gen_encoder_output_proposals"):
            parent.gen_encoder_output_proposals = MethodType(_proposals, parent)


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """The centres of a map's cells from 0 to 1: (height * width, 2) as x, y."""
    y = (torch.arange(height, device=like.device).to(like.dtype) + 0.5) / height
    x = (torch.arange(width, device=like.device).to(like.dtype) + 0.5) / width
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows), -1).flatten(0, 1)


def _reference_points(sizes: Sizes, valid_ratios: Tensor, device: Any) -> Tensor:
    """Where each cell of the encoder looks on each level.

    Args:
        sizes: height and width of each level.
        valid_ratios: the share of each level that is not padding (N, levels, 2) as
            width, height.
        device: mmdet's argument, which is that of ``valid_ratios``.

    Returns:
        points (N, S, levels, 2) as x, y.
    """
    points = [
        centres(height, width, valid_ratios) / valid_ratios[:, None, level]
        for level, (height, width) in enumerate(sizes)
    ]
    return torch.cat(points, 1)[:, :, None] * valid_ratios[:, None]


def _proposals(
    model: Any, memory: Tensor, memory_mask: Tensor | None, sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """The encoder's proposals: a box at each cell (arXiv 2010.04159, appendix A.4).

    Args:
        model: a two-stage detector of mmdet.
        memory: output of the encoder (N, S, C).
        memory_mask: true for padding (N, S), or None.
        sizes: height and width of each level.

    Returns:
        the memory for their heads (N, S, C), and the boxes (N, S, 4) as logits of
        x, y, w, h; infinite for padding and for boxes at the border.
    """
    boxes, start = [], 0
    for level, (height, width) in enumerate(sizes):
        points = centres(height, width, memory).expand(memory.shape[0], -1, -1)
        if memory_mask is not None:
            cells = memory_mask[:, start : start + height * width]
            ratio = model.get_valid_ratio(cells.unflatten(1, (height, width)))
            points = points / ratio[:, None]
            start += height * width
        sides = torch.full_like(points, 0.05 * 2**level)
        boxes.append(torch.cat((points, sides), -1))
    proposals = torch.cat(boxes, 1)
    invalid = ((proposals <= 0.01) | (proposals >= 0.99)).any(-1, keepdim=True)
    if memory_mask is not None:
        invalid = invalid | memory_mask[..., None]
    logits = torch.log(proposals / (1 - proposals)).masked_fill(invalid, torch.inf)
    memory = model.memory_trans_fc(memory.masked_fill(invalid, 0))
    return model.memory_trans_norm(memory), logits


def _flat(map_: Tensor) -> Tensor:
    """The cells of a map as a sequence: (N, C, H, W) -> (N, H * W, C)."""
    return map_.flatten(2).transpose(1, 2)


def _numbers(like: Tensor, *numbers: int) -> Tensor:
    """Numbers as a tensor (len(numbers),).

    ``torch.tensor`` would write the sizes of the example image into the trace.
    """
    return torch.stack([like.new_full((), number) for number in numbers])
