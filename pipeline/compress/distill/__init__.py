"""Distillation: the pass's config and stage function, and the losses."""
