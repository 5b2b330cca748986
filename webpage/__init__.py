"""The page: drop, watch, compare, see the bill. It reads the ledger, and writes only new files into the inbox."""
