"""Malicious servers and clients of secure aggregation, carried out and scored."""
