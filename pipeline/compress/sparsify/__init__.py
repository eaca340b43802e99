"""Unstructured and N:M sparsity: which weights become zero."""
