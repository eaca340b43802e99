"""What a model does, and what it puts out: inputs' kind, judged outputs, fidelity, label metrics, default losses."""
