"""Audit configs and references: read strictly, explained when wrong, without any heavy library."""

from ft_audit.engine.config.labels import (
    ChatModelConfig,
    LabelsConfig,
    NeuronpediaConfig,
    NeuronpediaSourceConfig,
    ScoringConfig,
)
from ft_audit.engine.config.load import find_config, load_config, load_yaml
from ft_audit.engine.config.refs import resolve_path, resolve_ref
from ft_audit.engine.config.schema import (
    AgentConfig,
    AuditConfig,
    DatasetConfig,
    ElicitConfig,
    GenerateConfig,
    HookConfig,
    JudgeConfig,
    ModelsConfig,
    PrecomputeConfig,
    Profile,
    SaeConfig,
    computed_json,
    config_json,
)
from ft_audit.engine.config.strict import Strict

__all__ = [
    "AgentConfig",
    "AuditConfig",
    "ChatModelConfig",
    "DatasetConfig",
    "ElicitConfig",
    "GenerateConfig",
    "HookConfig",
    "JudgeConfig",
    "LabelsConfig",
    "ModelsConfig",
    "NeuronpediaConfig",
    "NeuronpediaSourceConfig",
    "PrecomputeConfig",
    "Profile",
    "SaeConfig",
    "ScoringConfig",
    "Strict",
    "computed_json",
    "config_json",
    "find_config",
    "load_config",
    "load_yaml",
    "resolve_path",
    "resolve_ref",
]
