"""Predictors as a flat table, one column per number, for trees and plain networks.

A column is a scalar, a class (as indicators, or as a code), sine or cosine of an angle, one step of a
series, one feature of a vector. Images are the exception: each channel becomes its mean over the
pixels that are visible and observed, since one column per pixel would give more columns than rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from geomiam.data.predictors import bind
from geomiam.data.sites.table import SiteTable, read_arrays
from geomiam.schema.schema import Schema, refuse_observations
from geomiam.tokens.encode import encode
from geomiam.tokens.layout import Layout, Span
from geomiam.tokens.scaler import Scaler, fit_scaler
from geomiam.tokens.select import Selector, visible_tokens

Using = Selector | Sequence[Selector] | None


@dataclass(frozen=True)
class Columns:
    """Conversion of sites to a table ``(n, p)``: standardised, NaN where hidden or not observed."""

    layout: Layout
    scaler: Scaler
    onehot: bool
    """Classes as indicators; otherwise as codes from 0."""
    kept: np.ndarray
    """Boolean, over all columns: observed at some training site."""

    @classmethod
    def fit(cls, sites: xr.Dataset, schema: Schema, *, onehot: bool) -> Columns:
        """Compute means, deviations and classes from training sites."""
        schema = bind(schema, sites)
        refuse_observations(schema, "a baseline reads")
        symbolic = [n for n, v in schema.variables.items() if v.symbols]
        if symbolic:  # series as numbers, in the same windows
            schema = schema.symbolic(None, variables=symbolic)
        arrays = SiteTable.read(sites, schema, include_labels=False).checked().arrays
        columns = cls(Layout.of(schema), fit_scaler(arrays, schema), onehot, np.array([], bool))
        full_table = columns._cut(arrays, np.ones(columns.layout.size, bool))
        return replace(columns, kept=np.isfinite(full_table).any(0))

    def table(self, sites: xr.Dataset, *, using: Using = None) -> np.ndarray:
        """Return the columns of sites ``(n, p)``; predictors outside ``using`` are NaN and are not read."""
        visible = visible_tokens(self.layout, using)
        variables = self.layout.variables_of(visible)
        return self._cut(read_arrays(sites, self.layout.schema, variables=variables), visible)[
            :, self.kept
        ]

    @property
    def units(self) -> np.ndarray:
        """Return the token or channel of each column ``(p,)``; columns of one unit go missing together."""
        counts = [self._units(s) for s in self.layout.spans]
        starts = np.cumsum([0, *(u.max() + 1 for u in counts[:-1])])
        return np.concatenate([u + start for u, start in zip(counts, starts)])[self.kept]

    @property
    def categorical(self) -> np.ndarray:
        """Return which columns are class codes ``(p,)``."""
        flags = [
            np.full(len(self._units(s)), s.variable.kind == "categorical" and not self.onehot)
            for s in self.layout.spans
        ]
        return np.concatenate(flags)[self.kept]

    def _cut(self, arrays: Mapping[str, np.ndarray], visible: np.ndarray) -> np.ndarray:
        """Return every column, including those that were never observed."""
        block = encode(arrays, layout=self.layout, scaler=self.scaler)
        columns = []
        for part, values in zip(self.layout.parts, block.values):
            for span in part.spans:
                tokens_of_part = slice(span.start - part.start, span.start - part.start + span.size)
                hidden = ~visible[span.start : span.start + span.size, None]
                columns.append(
                    self._columns(np.where(hidden, np.nan, values[:, tokens_of_part]), span)
                )
        return np.concatenate(columns, 1).astype(np.float32)

    def _columns(self, z: np.ndarray, span: Span) -> np.ndarray:
        """Return tokens ``(n, tokens, width)`` of one variable as columns ``(n, c)``."""
        kind, flat = span.variable.kind, z.reshape(len(z), -1)
        if kind == "categorical" and self.onehot:
            classes = np.arange(len(self.scaler.classes[span.variable.name]))
            return np.where(np.isnan(flat), np.nan, flat == classes)
        if kind == "circular":
            return np.concatenate([np.sin(flat), np.cos(flat)], 1)
        return _observed_mean(z.reshape(len(z), span.channels, -1)) if kind == "image" else flat

    def _units(self, span: Span) -> np.ndarray:
        """Return the unit of each column ``(c,)`` of one variable, from 0."""
        kind = span.variable.kind
        if kind == "categorical" and self.onehot:
            return np.zeros(len(self.scaler.classes[span.variable.name]), np.intp)
        if kind == "circular":
            return np.zeros(2, np.intp)
        if kind == "image":
            return np.arange(span.channels)
        return np.repeat(np.arange(span.size), int(np.prod(span.widths)))


def _observed_mean(x: np.ndarray) -> np.ndarray:
    """Return the mean of the finite values over the last axis; NaN where there are none."""
    is_finite = np.isfinite(x)
    count = is_finite.sum(-1)
    mean = np.where(is_finite, x, 0).sum(-1) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
