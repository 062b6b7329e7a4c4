"""Parts of MAESTRO that plug into the default network: cross fusion, sparse attention, experts, gate."""
