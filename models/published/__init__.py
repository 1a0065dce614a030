"""Published models by the keys of their config.json: their ops, parameters, and state."""
