"""What a language model would take on a device: size, memory and speed, predicted from its config.json alone."""
