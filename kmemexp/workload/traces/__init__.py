"""Recorded kernel allocation traces: record, import, count, and turn into a workload's stream."""
