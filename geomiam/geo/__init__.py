"""Places on the Earth: coordinate reference systems, lengths with units, longitudes, names of spatial dims."""
