"""Durable state: the event log, threads, runs and files, behind interfaces with several implementations."""
