"""(model, target, recipe) -> the stages of an export, in order. The flow can be read in `build.py`."""
