"""Training a student to match a teacher, on one process or several."""
