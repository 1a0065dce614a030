"""Requests of many users in time: traces, queues, the prefix cache, replay."""
