"""The shapes of what `--json` prints, field by field: what scripts rely on, and what the reference page is made from.

What holds: a command prints one document of one shape; a field is never missing (null where it does not apply); fields
may be added, never renamed or given another meaning. Times are ISO 8601 in UTC with milliseconds and sort as text.
"""
