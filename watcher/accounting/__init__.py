"""What engines took and what it cost: measured, kept in the ledger, summed up, and compared."""
