"""The GPU model: measured operators, experts and served steps."""
