"""privfl: federated learning with every privacy layer and every attack in one engine."""
