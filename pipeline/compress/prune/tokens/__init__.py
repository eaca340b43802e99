"""Trimming a vocabulary: which tokens stay, and the tokenizer rewritten to have no others."""
