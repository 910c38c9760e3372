"""Draws a validation split from the training images, for data that has none."""

import random

from .splits import Split

FRACTION = 0.2  # of the images, to validate on


def draw_split(split: Split, seed: int) -> tuple[Split, Split]:
    """Divide a training split into one to train on and one to validate on.

    ``FRACTION`` of the images, at least one, are drawn to validate on. An image goes
    back to training if it has a class that no image to train on has, unless it is the
    last one to validate on. The same images and seed give the same splits on any
    machine.

    Returns:
        the training split and the validation split.
    """
    order = list(range(len(split.files)))
    random.Random(seed).shuffle(order)
    number = max(1, round(FRACTION * len(order)))
    val, train = order[:number], order[number:]
    classes = [set(counter) for counter in split.objects or split.pixels]
    trained = set().union(*(classes[i] for i in train))
    kept, left = [], len(val)
    for i in val:
        if classes[i] - trained and left > 1:
            left -= 1
            train.append(i)
            trained |= classes[i]
        else:
            kept.append(i)
    return split.select(sorted(train), "train"), split.select(sorted(kept), "val")
