"""Robust rules: CPU time, peak memory, and how both grow, beside ByzFL."""
