"""The experiment: what conf/ says, merged with OmegaConf and checked by frozen pydantic models.

`conf/experiment/NAME.yaml` names one file of each group (`data: scenes`) and overrides what it wants to
(`data: {use: scenes, labelled: 12}`). With `base: OTHER` it starts from another experiment. `load` returns the checked
whole. The flows take `Overrides`, the same models with every field optional, so that Prefect's page shows them as a
form.
"""

from semivl.config.data import ClassDefinition, Classes, DataConfig, Rule, Suite
from semivl.config.drift import DriftConfig
from semivl.config.experiment import (
    CONF,
    GROUPS,
    SUITE,
    Config,
    Overrides,
    check,
    expanded,
    experiments,
    load,
    load_suite,
)
from semivl.config.gate import GateConfig
from semivl.config.groups import GroupConfig, RefineConfig
from semivl.config.model import GuidanceConfig, MethodConfig, Parent, TrainConfig, VlmConfig
from semivl.config.record import IGNORE, Record
from semivl.config.retrain import RetrainConfig, interval_of
from semivl.config.run import ComputeConfig, EvaluationConfig

__all__ = [
    "CONF",
    "GROUPS",
    "IGNORE",
    "SUITE",
    "ClassDefinition",
    "Classes",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "DriftConfig",
    "EvaluationConfig",
    "GateConfig",
    "GroupConfig",
    "GuidanceConfig",
    "MethodConfig",
    "Overrides",
    "Parent",
    "Record",
    "RefineConfig",
    "RetrainConfig",
    "Rule",
    "Suite",
    "TrainConfig",
    "VlmConfig",
    "check",
    "expanded",
    "experiments",
    "interval_of",
    "load",
    "load_suite",
]
