"""The benchmarks by name."""

from __future__ import annotations

from spatial_mllm_ros.learning.evaluation.answers import ScanQa, Sqa3d
from spatial_mllm_ros.learning.evaluation.choice import Blink, CvBench
from spatial_mllm_ros.learning.evaluation.items import Benchmark
from spatial_mllm_ros.learning.evaluation.multispa import MultiSpa
from spatial_mllm_ros.learning.evaluation.spar import SparBench
from spatial_mllm_ros.learning.evaluation.vsi import VsiBench

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        VsiBench(),
        VsiBench("vsibench-debiased", debiased=True),
        MultiSpa(),
        SparBench(),
        Blink(),
        CvBench(),
        ScanQa(),
        Sqa3d(),
    )
}
