"""Compare tensors."""


def assert_same(mine, theirs, tolerance=1e-5):
    """Assert equal shapes, and differences within ``tolerance`` of the largest value.

    Values below 1 are compared absolutely. The default is for fp32: one rounding is
    6e-8 of a value, and those of a whole network add up to less than a hundred of the
    largest.
    """
    scale = max(1.0, theirs.abs().max().item())
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max().item() <= tolerance * scale
