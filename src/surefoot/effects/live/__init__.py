"""One call of an effect while it is performed: its claim, its act, what came out of it, and the end of its doubt."""
