"""What the store holds of effects: the ledger and its evidence, shown, resolved, forgotten; nothing here performs one."""
