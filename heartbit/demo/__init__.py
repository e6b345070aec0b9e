"""What a first run shows without any key or service."""
