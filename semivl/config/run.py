"""Where it runs and how it is scored: conf/compute, the experiment's evaluation."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from semivl.config.groups import RefineConfig
from semivl.config.record import Record


class ComputeConfig(Record):
    """Where a training runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(0, ge=0, description="processes that decode and crop")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; torch's own choice where empty")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of the networks; losses and cosines stay fp32")
    compile: bool = Field(False, description="torch.compile the blocks of the encoder and the decoder's convolutions")
    class_chunk: int | None = Field(
        10, ge=1, description="classes decoded at once, and again on the way back, which saves memory; all where empty"
    )
    ray: str | None = Field(
        None,
        description="address of a Ray cluster that ingests, and trains where `launch` is ray; this machine where empty",
    )
    launch: Literal["here", "torchrun", "ray"] = Field(
        "here", description="where the training runs: in this process, in several of this machine, or on a Ray cluster"
    )
    processes: PositiveInt | Literal["auto"] = Field(
        "auto", description="that train together, sharing every batch equally; auto: one a GPU, on CPUs one"
    )
    backend: Literal["auto", "gloo", "nccl"] = Field(
        "auto", description="what the processes talk by; auto: nccl between GPUs, gloo between CPUs"
    )
    restarts: int = Field(
        0, ge=0, description="how often processes that died or hang are started again from the last checkpoint"
    )
    heartbeat_seconds: PositiveFloat | None = Field(
        None, description="a process that finishes no step for so long is ended as hung; never where empty"
    )
    checkpoints: int = Field(2, ge=2, description="the newest ones that are kept, on the disk and in S3")
    channels_last: bool = Field(False, description="keep feature maps channel by channel, which convolutions may like")
    peak_tflops: PositiveFloat | None = Field(
        None,
        description="of the device at `precision`, to log the share of it that is used; from a table for known GPUs",
    )
    profile: str | None = Field(
        None, pattern=r"^\d+-\d+$", description="START-STOP: steps whose trace by torch's profiler the run keeps"
    )
    cache_bytes: int | None = Field(
        None,
        ge=1,
        description="shards kept on the local disk at the most; half of the disk they leave free where empty",
    )


class EvaluationConfig(Record):
    """How a model is scored: by a sliding window (spec 5)."""

    mode: Literal["average_logits", "sum_probabilities"] = Field(
        "average_logits", description="what overlapping windows add up; sum_probabilities cuts the last ones short"
    )
    short_side: int | None = Field(None, ge=16, description="resize so before prediction; native size where empty")
    window: int = Field(512, ge=16)
    stride: int = Field(426, ge=1)
    batch: int = Field(4, ge=1, description="windows predicted at once, of several photos where they are small")
    repeat_to_multiple_of: int = Field(
        1, ge=1, description="count the first images twice until their number divides, as that many GPUs once did"
    )
    latency_sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        ((320, 240), (640, 480)), description="width and height of photos whose cost, one at a time, is measured"
    )
    refine: RefineConfig | None = Field(
        None, description="even every prediction out over groups of alike patches; as the method gives it where empty"
    )
