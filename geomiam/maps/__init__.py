"""Maps on disk: planned, written block by block, resumed."""
