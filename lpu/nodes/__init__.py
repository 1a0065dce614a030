"""Single nodes that hold a whole model: rooflines of decode and prefill over tiers, beside a rack."""
