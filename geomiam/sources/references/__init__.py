"""Files of references (kerchunk, VirtualiZarr): chunks of other files as a Zarr store, of which nothing is trusted."""
