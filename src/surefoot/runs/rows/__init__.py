"""What the store holds of runs: rows, queries and statements; nothing here executes a run."""
