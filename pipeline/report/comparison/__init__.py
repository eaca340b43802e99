"""What `edge compare` found: in the terminal, in files, in other reports, and kept for them in the store."""
