"""Real data: parsed from the original files, split among clients, fetched with checksums."""
