"""Labels in compact form: they train the same model, to the bit, as a table of labels."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers_small import TINY_NETWORK, quick, tiny_sites, weights_of

import geomiam as gm
from geomiam import labels as labels_module
from geomiam.data.sites.table import any_labels, read_labels
from geomiam.errors import LabelError, MemoryRefused
from geomiam.labels import SparseLabels, label_counts, take
from geomiam.splits import hold_out
from geomiam.training import choice


def label_table(n: int = 60, species: int = 7, seed: int = 0) -> np.ndarray:
    """Sites with few presences, background, complete and mixed surveys, one without a label."""
    rng = np.random.default_rng(seed)
    table = np.full((n, species), np.nan, np.float32)
    table[::3] = 0
    table[rng.random(table.shape) < 0.15] = 1
    table[1::7] = rng.choice([0, 1, np.nan], table[1::7].shape)
    table[0] = np.nan
    return table


def labelled_sites(n: int = 120) -> xr.Dataset:
    return tiny_sites(n, species=7).assign(presence=(("site", "species"), label_table(n)))


def lazy(sites: xr.Dataset, chunk: int = 13) -> xr.Dataset:
    return sites.assign(presence=sites["presence"].chunk(site=chunk, species=3))


def about_of(model: gm.Model) -> dict:
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in model.about["history"]]
    return {**model.about, "history": history}


# The compact form ---------------------------------------------------------------------------------


def test_rows_and_parts_of_the_compact_form_are_those_of_the_table():
    table = label_table()
    compact = SparseLabels.joined([SparseLabels.of(table[:20]), SparseLabels.of(table[20:])])
    np.testing.assert_array_equal(compact[:], table)
    rows = np.array([59, 3, 3, 0, 21])
    np.testing.assert_array_equal(compact[rows], table[rows])
    mask = np.arange(len(table)) % 4 == 1
    np.testing.assert_array_equal(compact.take(mask)[:], table[mask])
    np.testing.assert_array_equal(compact.take(rows)[[1, 4]], table[rows][[1, 4]])
    assert compact[np.zeros(0, int)].shape == (0, 7)
    assert compact[rows].dtype == np.float32 and len(compact) == len(table)


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_table(seed):
    table = label_table(seed=seed)
    counts = label_counts(SparseLabels.of(table))
    np.testing.assert_array_equal(counts.present, (table == 1).sum(0))
    np.testing.assert_array_equal(counts.absent, (table == 0).sum(0))
    assert counts.single == ((table == 1).sum(1) == 1).sum() and counts.sites == len(table)
    for field in ("present", "absent", "surveyed"):
        np.testing.assert_array_equal(getattr(counts, field), getattr(label_counts(table), field))


def test_presences_of_background_and_records_are_all_that_is_stored():
    table = np.full((1000, 500), np.nan, np.float32)
    table[::2] = 0
    table[np.arange(1000), np.arange(1000) % 500] = 1
    compact = SparseLabels.of(table)
    assert len(compact.values) == 1000
    assert sum(a.nbytes for a in compact.arrays) < table.nbytes / 80


def test_sites_held_out_are_those_of_the_table():
    table, blocks = label_table(), np.arange(60) // 4
    expected, actual = (
        hold_out(labels, blocks, share=0.3, rng=np.random.default_rng(0))
        for labels in (table, SparseLabels.of(table))
    )
    np.testing.assert_array_equal(actual, expected)
    assert len(take(SparseLabels.of(table), expected)) == expected.sum()


def test_labels_of_a_dask_array_are_compact_and_checked():
    sites = labelled_sites()
    labels, names = any_labels(lazy(sites))
    assert isinstance(labels, SparseLabels) and names == any_labels(sites)[1]
    np.testing.assert_array_equal(labels[:], sites["presence"])
    np.testing.assert_array_equal(read_labels(lazy(sites))[0], sites["presence"])
    with pytest.raises(LabelError, match=r"must be 0, 1 or NaN, found 2\.0"):
        any_labels(lazy(sites.assign(presence=sites["presence"] * 2)))


def test_a_table_that_is_too_large_is_refused_with_its_size(monkeypatch):
    sites = labelled_sites()
    monkeypatch.setattr(labels_module, "MOST_BYTES", 4 * 120 * 7 - 1)
    with pytest.raises(MemoryRefused, match="120 sites x 7 species"):
        read_labels(lazy(sites))
    with pytest.raises(MemoryRefused, match=r"isel\(species="):
        gm.evaluate(gm.fit(lazy(sites), network=TINY_NETWORK, training=quick()), lazy(sites))


# Training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"training": {"steps": 3, "epoch_steps": 1}, "network": {"width": 8, "frequencies": 4}},
        {"training": quick(loss="maxent"), "network": TINY_NETWORK},
        {"training": quick(loss="bce", holdout=0, keep="last"), "network": TINY_NETWORK},
        {
            "training": quick(epochs=2),
            "network": {"fusion": "late", "width": 8},
            "warm_start": True,
        },
    ],
    ids=["rule", "maxent", "bce", "late"],
)
def test_compact_labels_train_the_same_model_to_the_bit(settings):
    sites = labelled_sites()
    expected, actual = gm.fit(sites, rng=1, **settings), gm.fit(lazy(sites), rng=1, **settings)
    assert weights_of(actual) == weights_of(expected)
    assert about_of(actual) == about_of(expected)


def test_one_present_species_per_site_trains_with_cross_entropy():
    sites = labelled_sites()
    single = np.eye(7, dtype=np.float32)[np.arange(120) % 7]
    single[::5][single[::5] == 0] = np.nan
    sites = sites.assign(presence=(("site", "species"), single))
    settings = {"training": quick(loss="cross-entropy"), "network": TINY_NETWORK}
    assert weights_of(gm.fit(lazy(sites), **settings)) == weights_of(gm.fit(sites, **settings))
    with pytest.raises(LabelError, match="have none or several"):
        gm.fit(lazy(labelled_sites()), **settings)


def test_an_interrupted_run_resumes_with_compact_labels(tmp_path):
    sites, options = lazy(labelled_sites()), {"network": TINY_NETWORK}
    expected = gm.fit(sites, training=quick(epochs=4), **options)
    gm.fit(sites, training=quick(epochs=2), checkpoint=tmp_path / "run", **options)
    second = gm.fit(sites, training=quick(epochs=4), checkpoint=tmp_path / "run", **options)
    assert weights_of(second) == weights_of(expected)


def test_scores_of_an_epoch_are_limited(monkeypatch):
    sites, numbers = labelled_sites(), []
    original = choice.scored_step
    monkeypatch.setattr(choice, "MOST_NUMBERS", 3 * 7 * 5)  # five sites
    monkeypatch.setattr(
        "geomiam.training.supervised.mean_auc", lambda y, z: numbers.append(len(y)) or 0.5
    )
    gm.fit(sites, training=quick(), network=TINY_NETWORK, masking="uniform")
    assert original(100, 21) == 20 and set(numbers) <= {4, 5} and numbers


def test_labels_are_never_read_whole(monkeypatch):
    """Every chunk is read once, and no array of all labels is made."""
    table, read = label_table(120), []

    def chunk(block_info=None):
        (first, last), _ = block_info[None]["array-location"]
        read.append((first, last))
        return table[first:last]

    array = da.map_blocks(chunk, chunks=((13,) * 9 + (3,), (7,)), dtype=np.float32)
    sites = labelled_sites().assign(presence=(("site", "species"), array))
    gm.fit(sites, training=quick(), network=TINY_NETWORK)
    assert sorted(read) == [(i, min(i + 13, 120)) for i in range(0, 120, 13)]
