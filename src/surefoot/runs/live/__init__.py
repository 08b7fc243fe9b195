"""One run while its code is executed: what it has asked for, what is recorded of that, what it waits for."""
