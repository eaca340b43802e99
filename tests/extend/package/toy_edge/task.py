"""A task: states of single tokens, as a sentence encoder has them before pooling."""

from dataclasses import replace

from pipeline.source.tasks import FEATURE_EXTRACTION

TOKEN_STATES = replace(FEATURE_EXTRACTION, name="token-states", architecture_suffixes=())
