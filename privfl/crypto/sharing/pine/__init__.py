"""PINE: norms proved to two servers, of which neither sees the vector."""
