"""COCO-O: COCO's classes in six other domains, and how robust a detector is there.

Source: "COCO-O: A Benchmark for Object Detectors under Natural Distribution
Shifts" (arXiv 2307.12730). Needs MMDetection, so only configs that test on
COCO-O import this module.
"""

from mmdet.evaluation import MultiDatasetsEvaluator
from mmengine.logging import print_log
from mmengine.registry import EVALUATOR

from convnext_dense.errors import InputError

EXPECTED = 0.45  # of the box mAP on COCO val2017 is what a detector keeps on COCO-O


@EVALUATOR.register_module()
class CocoOEvaluator(MultiDatasetsEvaluator):
    """Box mAP of each domain, their mean, and effective robustness.

    Effective robustness is the mean minus 0.45 times the box mAP on COCO
    val2017: what is left over the loss that other detectors have.

    Args:
        metrics: a ``CocoMetric`` for each domain, as in the order of the data sets.
        dataset_prefixes: the domains' names.
        coco_box_map: box mAP of the same weights on COCO val2017, 0 to 1.
    """

    def __init__(self, metrics: list, dataset_prefixes: list, coco_box_map: float):
        super().__init__(metrics, dataset_prefixes)
        self.coco_box_map = coco_box_map

    def evaluate(self, size: int) -> dict[str, float]:
        """Every metric of every domain, and ``coco_o/average_mAP`` and
        ``coco_o/effective_robustness``, all between 0 and 1.

        Raises:
            InputError: a domain without annotated objects.
        """
        found = super().evaluate(size)
        # Without any detection in a domain, CocoMetric gives no mAP.
        domains = {
            domain: found.get(f"{domain}/coco/bbox_mAP", 0.0)
            for domain in self.dataset_prefixes
        }
        for domain, value in domains.items():
            if value < 0:  # COCO's word for nothing to find
                raise InputError(f"COCO-O: no object is annotated in {domain}")
        average = sum(domains.values()) / len(domains)
        robustness = average - EXPECTED * self.coco_box_map
        found["coco_o/average_mAP"] = average
        found["coco_o/effective_robustness"] = robustness
        rows = {
            **domains,
            "average": average,
            f"effective robustness over {self.coco_box_map:.1%} on COCO": robustness,
        }
        lines = (f"{100 * value:7.2f}  {row}" for row, value in rows.items())
        print_log("COCO-O, box mAP in per cent\n" + "\n".join(lines), "current")
        return found
