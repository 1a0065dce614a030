"""Requests through a machine, event by event: slots of users, prefix blocks, several seeds."""
