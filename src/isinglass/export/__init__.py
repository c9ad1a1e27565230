"""Ways out of a finished model: to another engine's format, or to the hub."""
