"""Secret sharing."""
