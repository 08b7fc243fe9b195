"""Coordination: how agents that share something keep out of each other's way, and how work finds one of many.

Above `runs`, for what it offers is taken as steps of runs; below `adapters`. Each part works alone, outside runs, too.
"""
