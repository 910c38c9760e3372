"""Part a training split into one to train and one to validate on."""

import random

from .splits import Part

FRACTION = 0.2  # of the images, to validate on


def split(part: Part, seed: int) -> tuple[Part, Part]:
    """Draw ``FRACTION`` of the images; no class leaves the training split whole.

    The same images and seed give the same split, on any machine.
    """
    order = list(range(len(part.files)))
    random.Random(seed).shuffle(order)
    number = max(1, round(FRACTION * len(order)))
    held, rest = order[:number], order[number:]
    classes = [set(counter) for counter in part.objects or part.pixels]
    trained = set().union(*(classes[i] for i in rest))
    for i in list(held):
        if classes[i] - trained and len(held) > 1:
            held.remove(i)
            rest.append(i)
            trained |= classes[i]
    return part.select(sorted(rest), "train"), part.select(sorted(held), "val")
