"""Optional parts of MAESTRO: cross fusion, sparse attention, experts, gate."""
