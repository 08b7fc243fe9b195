"""Surefoot: agents that keep their place, and never act twice unnoticed."""
