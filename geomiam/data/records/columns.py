"""Names of the columns of species."""

from __future__ import annotations

import pandas as pd

SPECIES = (
    *("species", "scientificname", "acceptedscientificname", "verbatimscientificname"),
    *("species_name", "speciesname", "scientific_name", "sci_name", "sciname", "binomial"),
    *("taxon", "taxon_name", "taxonname", "canonicalname", "sp", "spp", "spec"),
)
"""Names of columns of species in lower case, in the order in which they are used."""


def species_column(table: pd.DataFrame) -> str | None:
    """Return the column with the names of species that is recognised by its name; None if there is none.

    A column that is empty in all rows is not used.
    """
    columns = {str(c).strip().lower(): c for c in reversed(table.columns)}
    names = [columns[n] for n in SPECIES if n in columns]
    return next(
        (n for n in names if table[n].notna().to_numpy().any()), names[0] if names else None
    )
