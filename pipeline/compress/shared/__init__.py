"""What several passes use: cost, input moments, name patterns, judging a candidate."""
