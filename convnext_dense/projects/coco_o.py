"""COCO-O: evaluate a COCO detector on images of six other domains.

Source: "COCO-O: A Benchmark for Object Detectors under Natural Distribution
Shifts" (arXiv 2307.12730). This module needs MMDetection, so only configs that test
on COCO-O import it.
"""

from mmdet.evaluation import MultiDatasetsEvaluator
from mmengine.logging import print_log
from mmengine.registry import EVALUATOR

from convnext_dense.errors import InputError

# Box mAP on COCO-O / box mAP on COCO val2017 that the paper expects of a detector.
EXPECTED = 0.45


@EVALUATOR.register_module()
class CocoOEvaluator(MultiDatasetsEvaluator):
    """Reports box mAP of each domain, their mean, and effective robustness.

    Effective robustness is the mean minus 0.45 times the box mAP on COCO val2017: how
    far the detector is above the mAP that is expected of its mAP on COCO.

    Args:
        metrics: a ``CocoMetric`` for each domain, in the order of the data sets.
        dataset_prefixes: the domains' names.
        coco_box_map: box mAP of the same weights on COCO val2017, from 0 to 1.
    """

    def __init__(self, metrics: list, dataset_prefixes: list, coco_box_map: float):
        super().__init__(metrics, dataset_prefixes)
        self.coco_box_map = coco_box_map

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the metrics over all domains.

        Args:
            size: number of images in all data sets.

        Returns:
            the metrics of each domain, and ``coco_o/average_mAP`` and
            ``coco_o/effective_robustness``, as fractions.

        Raises:
            InputError: a domain has no annotated objects.
        """
        metrics = super().evaluate(size)
        # If a domain has no detections, CocoMetric returns no mAP for it.
        domains = {
            domain: metrics.get(f"{domain}/coco/bbox_mAP", 0.0)
            for domain in self.dataset_prefixes
        }
        for domain, value in domains.items():
            if value < 0:  # pycocotools' value for "no annotated objects"
                raise InputError(
                    f"COCO-O: the domain {domain} has no annotated objects"
                )
        average = sum(domains.values()) / len(domains)
        robustness = average - EXPECTED * self.coco_box_map
        metrics["coco_o/average_mAP"] = average
        metrics["coco_o/effective_robustness"] = robustness
        rows = {
            **domains,
            "average": average,
            f"effective robustness over {self.coco_box_map:.1%} on COCO": robustness,
        }
        lines = (f"{100 * value:7.2f}  {row}" for row, value in rows.items())
        print_log("COCO-O, box mAP in percent\n" + "\n".join(lines), "current")
        return metrics
