"""Importance of predictors: known games, honest errors, and the model's predictions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from conftest import train_small
from helpers_small import quick, tiny_sites
from scipy.stats import t
from sklearn.metrics import roc_auc_score

import geomiam as gm
from geomiam.errors import LabelError, SelectionError
from geomiam.explain.sampling import Memo, exact, latin_square, sample, steps
from geomiam.explain.skill_game import SkillGame, masks_of_groups, skill_game
from geomiam.inference.engine import base_value

GROUPS = 7
KINDS = [
    ("latin", "independent"),
    ("latin", "cyclic"),
    ("latin", "antithetic"),
    ("uniform", "independent"),
]


def skill(coalitions: np.ndarray) -> np.ndarray:
    """Two games of seven groups: 0 and 1 alike, 2 and 3 worth something together, 6 worth nothing."""
    x = coalitions[:, :6].astype(float)
    rough = np.random.default_rng(5).normal(size=2**6)[(x @ 2 ** np.arange(6)).astype(int)]
    smooth = np.sqrt(x @ [1, 1, 0.5, 0.5, 3, 6]) + x[:, 2] * x[:, 3]
    return np.stack([0.5 + smooth, smooth + 0.3 * rough], 1)


TRUTH = exact(skill, GROUPS)


# Exact values -------------------------------------------------------------------------------------


def test_exact_values_are_those_of_an_independent_computer():
    pytest.importorskip("shapiq")
    from shapiq.game_theory import ExactComputer

    for column in range(2):
        values = ExactComputer(lambda c, k=column: skill(c)[:, k], n_players=GROUPS)("SV", 1)
        expected = [values[(i,)] for i in range(GROUPS)]
        np.testing.assert_allclose(TRUTH.values[:, column], expected, atol=1e-12)
    assert (TRUTH.standard_error == 0).all()
    assert (TRUTH.evaluations, TRUTH.visits) == (2**GROUPS, 2**GROUPS - 2)


def test_exact_values_obey_the_axioms():
    np.testing.assert_allclose(TRUTH.values.sum(0), TRUTH.full - TRUTH.base, atol=1e-12)
    np.testing.assert_allclose(TRUTH.values[6], 0, atol=1e-12)
    assert TRUTH.values[0, 0] == pytest.approx(TRUTH.values[1, 0], abs=1e-12)
    assert TRUTH.values[2, 0] == pytest.approx(TRUTH.values[3, 0], abs=1e-12)


# Sampled values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cyclic", [True, False])
def test_latin_squares_are_latin(cyclic):
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 9):
        square = latin_square(n, cyclic=cyclic, rng=rng)
        for lines in (square, square.T):
            np.testing.assert_array_equal(np.sort(lines, 1), np.tile(np.arange(n), (n, 1)))


def test_the_published_squares_are_shifts_of_one_order_and_ours_are_not():
    rng = np.random.default_rng(0)
    shift = lambda square: len(np.unique((square - square[:1]) % len(square), axis=1).T)  # noqa: E731
    assert shift(latin_square(8, cyclic=True, rng=rng)) == 1
    assert shift(latin_square(8, cyclic=False, rng=rng)) > 1


@pytest.mark.parametrize(("method", "rows"), KINDS)
def test_values_are_the_mean_of_what_groups_add_counted_by_hand(method, rows):
    """An additive game has no variance: any order, any pair, gives the exact values."""
    worth = np.arange(5.0)[:, None]
    estimate = sample(lambda c: c @ worth, 5, method=method, rows=rows, samples=4)
    np.testing.assert_allclose(estimate.values, worth, atol=1e-12)
    np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-12)


def test_latin_values_equal_a_walk_along_the_rows():
    rng = np.random.default_rng(3)
    squares = [latin_square(GROUPS, cyclic=True, rng=rng) for _ in range(3)]
    contributions = np.zeros((3, GROUPS, 2))
    for k, square in enumerate(squares):
        for order in square:
            is_member = np.zeros((1, GROUPS), bool)
            for group in order:
                before = skill(is_member)[0]
                is_member[0, group] = True
                contributions[k, group] += (skill(is_member)[0] - before) / GROUPS
    estimate = sample(skill, GROUPS, rows="cyclic", samples=3, rng=np.random.default_rng(3))
    np.testing.assert_allclose(estimate.values, contributions.mean(0), atol=1e-12)
    expected = contributions.std(0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(estimate.standard_error, expected, atol=1e-12)


@pytest.mark.parametrize("rows", ["independent", "cyclic", "antithetic"])
def test_latin_values_add_up_and_nothing_is_worth_nothing(rows):
    for seed in range(20):
        estimate = sample(skill, GROUPS, rows=rows, samples=4, rng=seed)
        np.testing.assert_allclose(
            estimate.values.sum(0), estimate.full - estimate.base, atol=1e-12
        )
        np.testing.assert_allclose(estimate.values[6], 0, atol=1e-12)


@pytest.fixture(scope="module")
def runs():
    """250 samples of every kind, of equal cost."""
    game = Memo(skill)
    options = {"samples": 24}
    return {
        kind: [
            sample(game, GROUPS, method=kind[0], rows=kind[1], rng=seed, **options)
            for seed in range(250)
        ]
        for kind in KINDS
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_the_truth_as_often_as_they_say(runs, kind):
    estimate = runs[kind]
    off = np.abs(np.stack([f.values for f in estimate]) - TRUTH.values)
    error = np.stack([f.standard_error for f in estimate])
    inside = off <= t.ppf(0.975, estimate[0].replicates - 1) * error
    is_covered = inside[:, :6].mean(0)  # the seventh has no error at all
    assert ((is_covered > 0.9) & (is_covered < 0.99)).all(), is_covered
    assert 0.93 < is_covered.mean() < 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_unbiased(runs, kind):
    values = np.stack([f.values for f in runs[kind]])
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - TRUTH.values) <= 4 * error + 1e-12).all()


def test_strata_err_less_than_plain_monte_carlo_of_equal_cost(runs):
    off = {k: np.stack([f.values for f in estimate]) - TRUTH.values for k, estimate in runs.items()}
    rmse = {k: np.sqrt((o[:, :6] ** 2).mean((0, 1))) for k, o in off.items()}
    visits = {k: np.mean([f.visits for f in estimate]) for k, estimate in runs.items()}
    uniform = ("uniform", "independent")
    for kind in KINDS[:3]:
        assert (rmse[kind] < 0.8 * rmse[uniform]).all(), rmse
        assert visits[kind] == pytest.approx(visits[uniform], rel=0.01)
    assert rmse["latin", "antithetic"][0] < rmse["latin", "independent"][0]  # the smooth game


def test_steps_are_the_samples_of_their_sizes():
    along = list(steps(skill, GROUPS, at=[2, 5, 9], rng=7))
    for size, step in zip((2, 5, 9), along, strict=True):
        alone = sample(skill, GROUPS, samples=size, rng=7)
        np.testing.assert_array_equal(step.values, alone.values)
        np.testing.assert_array_equal(step.standard_error, alone.standard_error)
        assert step.visits == alone.visits == size * GROUPS * (GROUPS - 1)
        assert step.evaluations == alone.evaluations


@pytest.mark.parametrize("memory", [2**30, 200, 0])
def test_no_coalition_is_evaluated_twice_while_memory_lasts(memory):
    evaluated_coalitions: list[bytes] = []

    def watched(coalitions):
        evaluated_coalitions.extend(row.tobytes() for row in coalitions)
        return skill(coalitions)

    memo = Memo(watched, memory=memory)
    estimate = sample(memo, GROUPS, samples=12)
    assert len(evaluated_coalitions) == memo.evaluations == estimate.evaluations
    if memory == 2**30:
        assert len(evaluated_coalitions) == len(set(evaluated_coalitions)) <= 2**GROUPS
    assert len(memo.stored) <= memory / 16
    np.testing.assert_array_equal(estimate.values, sample(skill, GROUPS, samples=12).values)


def test_one_player_gets_everything():
    alone = lambda c: 2.0 + 3.0 * c  # noqa: E731
    for method in ("latin", "uniform"):
        estimate = sample(alone, 1, method=method, samples=4)
        assert (estimate.values.item(), estimate.standard_error.item()) == (3.0, 0.0)
    assert exact(alone, 1).values.item() == 3.0


def test_samples_without_an_error_are_refused():
    with pytest.raises(ValueError, match=r"samples=1 leaves 1 independent replicate.*samples=2"):
        sample(skill, GROUPS, samples=1)
    with pytest.raises(ValueError, match=r"samples=2 leaves 1 independent replicate.*samples=4"):
        sample(skill, GROUPS, samples=2, rows="antithetic")
    with pytest.raises(ValueError, match=r"come in pairs, but samples=7 is odd; pass samples=8"):
        sample(skill, GROUPS, samples=7, rows="antithetic")
    with pytest.raises(ValueError, match=r"no method 'sobol'.*methods: latin, uniform"):
        sample(skill, GROUPS, method="sobol")


# Skill of a model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(either_model):
    return either_model


@pytest.fixture
def game(model, sites):
    """The skill game of the modalities."""
    return skill_game(model, sites, groups="modalities")


def test_every_coalition_predicts_as_a_plain_prediction_does(model, sites, game):
    names = list(model.schema.modalities)
    any_observed = gm.predict(sites, model)["suitability"].notnull().all("species").values
    base = base_value(model, species=game.species, scale="logit")
    coalitions = some_coalitions(game)
    (answers,) = game._scores((coalitions[:, :, None] & game.groups).any(1))
    for coalition, estimate in zip(coalitions, answers, strict=True):
        using = [n for n, member in zip(names, coalition) if member]
        plain = gm.predict(sites, model, using=using, scale="logit")["suitability"]
        plain = plain.transpose("site", "species").values[any_observed]
        unseen = np.isnan(plain)
        np.testing.assert_allclose(estimate, np.where(unseen, base, plain), atol=2e-6)
        assert (
            estimate[unseen] == np.broadcast_to(base, estimate.shape)[unseen]
        ).all()  # exact ties


def test_every_coalition_is_scored_as_scikit_learn_scores_it(sites, game):
    coalitions = some_coalitions(game)
    (answers,) = game._scores((coalitions[:, :, None] & game.groups).any(1))
    for scores, estimate in zip(answers, game(coalitions), strict=True):
        columns = zip(game.labels.T, scores.T)
        expected = [roc_auc_score(y[y == y], s[y == y]) for y, s in columns]
        np.testing.assert_allclose(estimate, [*expected, np.mean(expected)], atol=1e-12)


def some_coalitions(game: SkillGame) -> np.ndarray:
    """Everything, every group alone, and a few at random; never nobody."""
    count = len(game.groups)
    random_coalitions = np.random.default_rng(0).random((6, count)) < 0.5
    is_either = np.concatenate(
        [np.ones((1, count), bool), np.eye(count, dtype=bool), random_coalitions]
    )
    return is_either[is_either.any(1)]


def test_values_are_the_exact_ones_of_that_game(model, sites, game):
    table = gm.explain.importance(model, sites, groups="modalities")
    truth = exact(game, len(game.groups))
    np.testing.assert_allclose(table["shapley"], truth.values[:, :-1], atol=1e-9)
    np.testing.assert_allclose(table["mean_shapley"], table["shapley"].mean("species"), atol=1e-9)
    assert (table["base_value"] == 0.5).all()
    full = table["shapley"].sum("group") + table["base_value"]
    np.testing.assert_allclose(full, table["full_value"], atol=1e-12)
    assert (table["standard_error"] == 0).all()
    assert table["group"].values.tolist() == list(model.schema.modalities)
    assert table.attrs["evaluations"] == 2 ** len(model.schema.modalities)


def test_the_full_value_is_the_skill_that_evaluate_reports(model, sites):
    table = gm.explain.importance(
        model, sites, options=gm.explain.ImportanceOptions(method="latin", samples=2)
    )
    skill = gm.evaluate(model, sites, subsets="all")
    np.testing.assert_allclose(table["full_value"], skill["auc"].sel(subset="all"), atol=2e-4)
    assert table.attrs["sites"] == int(skill["sites"][0]) < sites.sizes["site"]


def test_sampled_values_lie_about_the_exact_ones(model, sites):
    estimate = gm.explain.importance(
        model,
        sites,
        options=gm.explain.ImportanceOptions(method="latin", samples=8, rows="antithetic", rng=1),
    )
    truth = gm.explain.importance(model, sites)
    total = estimate["mean_shapley"].sum() + estimate["mean_base_value"]
    assert float(total) == pytest.approx(float(estimate["mean_full_value"]), abs=1e-12)
    off = np.abs(estimate["mean_shapley"] - truth["mean_shapley"])
    assert (off <= t.ppf(0.9995, 3) * estimate["standard_error"] + 1e-12).all()
    assert estimate.attrs["replicates"] == 4
    assert estimate.attrs["evaluations"] <= 2 ** estimate.sizes["group"]


def test_what_is_nowhere_observed_is_worth_nothing(model, sites):
    hidden_sites = sites.assign(landsat=sites["landsat"] * np.nan)
    table = gm.explain.importance(model, hidden_sites)
    np.testing.assert_allclose(table["shapley"].sel(group="landsat"), 0, atol=1e-12)
    assert (np.abs(table["mean_shapley"]) > 0).sum() > 2


def test_scores_held_in_memory_change_nothing(model, sites, game, monkeypatch):
    coalitions = np.random.default_rng(1).random((5, len(game.groups))) < 0.5
    together = game(coalitions)
    monkeypatch.setattr("geomiam.explain.skill_game.GAME_SCORES", 1)
    # Rounding may turn a near-tie of two sites: one pair of some thousands.
    np.testing.assert_allclose(game(coalitions), together, atol=1e-3)


@pytest.fixture(scope="module")
def tiny():
    """Sites of two modalities, three variables and 120 sites, and a model of them."""
    sites = tiny_sites(120)
    return sites, gm.fit(sites, network=gm.NetworkConfig(width=8, heads=2), training=quick(), rng=0)


def test_groups_are_variables_or_what_the_user_names(tiny):
    sites, model = tiny
    assert list(masks_of_groups(model.layout, "variables")) == ["bio1", "clay", "ndvi"]
    table = gm.explain.importance(
        model, sites, groups={"spring": "ndvi[month=1:4]", "warmth": "climate"}
    )
    assert table["group"].values.tolist() == ["spring", "warmth", "rest"]
    with pytest.raises(
        SelectionError, match=r"groups='tokens' is neither modalities nor variables"
    ):
        gm.explain.importance(model, sites, groups="tokens")


def test_a_variable_may_be_called_like_its_modality(model):
    masks = np.stack(list(masks_of_groups(model.layout, "variables").values()))
    assert (masks.sum(0) == 1).all()
    assert list(masks_of_groups(model.layout, "variables")) == [
        s.variable.name for s in model.layout.spans
    ]


@pytest.mark.parametrize("metric", ["tss", "average_precision", "brier", "log_loss"])
def test_metrics_that_know_ties_share_their_value(tiny, metric):
    sites, model = tiny
    table = gm.explain.importance(model, sites, groups="variables", metric=metric)
    is_either = table["base_value"] + table["shapley"].sum("group")
    np.testing.assert_allclose(is_either, table["full_value"], atol=1e-12)
    expected = gm.evaluate(model, sites, subsets="all", metrics=[metric])[metric]
    np.testing.assert_allclose(table["full_value"], expected.isel(subset=0), atol=1e-4)


def test_metrics_that_do_not_are_refused(tiny):
    sites, model = tiny
    with pytest.raises(SelectionError, match=r"'boyce' has no value where all predictions are eq"):
        gm.explain.importance(model, sites, metric="boyce")
    with pytest.raises(SelectionError, match="no metric"):
        gm.explain.importance(model, sites, metric="aic")


def test_too_many_groups_are_refused_with_the_call_that_samples(tiny, monkeypatch):
    sites, model = tiny
    monkeypatch.setattr("geomiam.explain.skill.MOST_GROUPS", 2)
    with pytest.raises(SelectionError, match=r"3 groups mean 2\^3 = 8 coal.*method='latin'"):
        gm.explain.importance(model, sites, groups="variables")
    table = gm.explain.importance(
        model,
        sites,
        groups="variables",
        options=gm.explain.ImportanceOptions(method="latin", samples=2),
    )
    assert table.sizes["group"] == 3


def test_a_species_of_one_class_has_no_value_and_counts_nowhere(tiny):
    sites, model = tiny
    labels = sites["presence"].copy()
    labels[:, 1] = 1
    table = gm.explain.importance(model, sites.assign(presence=labels))
    assert np.isnan(table["shapley"].isel(species=1)).all()
    first = table["shapley"].isel(species=0)
    np.testing.assert_array_equal(table["mean_shapley"], first)
    assert table.attrs["scored_species"] == 1
    with pytest.raises(LabelError, match="none of 2 species has both presences and absences"):
        gm.explain.importance(model, sites.assign(presence=labels * 0 + 1))


def test_a_softmax_model_is_judged_by_its_shares(sites):
    first = np.nan_to_num(sites["presence"].values).argmax(1)
    single = sites.assign(presence=(("site", "species"), np.eye(3, dtype=np.float32)[first]))
    model = train_small(single, "group", loss="cross-entropy")
    table = gm.explain.importance(model, single, groups={"c": "climate", "t": "terrain"})
    assert (table["base_value"] == 0.5).all()
    expected = gm.evaluate(model, single, subsets="all")["auc"].sel(subset="all")
    np.testing.assert_allclose(table["full_value"], expected, atol=2e-4)


def test_the_game_is_one_pass_over_sites_not_one_prediction_per_coalition(game, monkeypatch):
    """Tokens are made once per block of sites, however many coalitions look at them."""
    calls_made = []
    network = type(game.model.network)
    tokens = network.tokens
    monkeypatch.setattr(network, "tokens", lambda *a: calls_made.append(1) or tokens(*a))
    game(np.ones((1, len(game.groups)), bool))
    once, calls_made[:] = len(calls_made), []
    game(np.random.default_rng(0).random((30, len(game.groups))) < 0.7)
    assert len(calls_made) == once
    assert isinstance(game, SkillGame)


# Figures ------------------------------------------------------------------------------------------


@pytest.fixture
def figures():
    """Figures to be, drawn without a screen and closed afterwards."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def test_bars_are_the_values_in_order_and_their_whiskers_the_intervals(tiny, figures):
    sites, model = tiny
    table = gm.explain.importance(
        model,
        sites,
        groups="variables",
        options=gm.explain.ImportanceOptions(method="latin", samples=6),
    )
    ax = gm.plot.importance(table)
    bars, whiskers = (c for c in ax.containers[::-1])
    order = np.argsort(table["mean_shapley"].values)
    widths = [bar.get_width() for bar in bars]
    np.testing.assert_allclose(widths, table["mean_shapley"].values[order])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(
        table["group"].values[order]
    )
    (segments,) = (c for c in whiskers[2])
    half = [np.diff(line[:, 0])[0] / 2 for line in segments.get_segments()]
    expected = t.ppf(0.975, 5) * table["standard_error"].values[order]
    np.testing.assert_allclose(half, expected, atol=1e-12)
    assert f"{float(table['mean_full_value']):.3f} with all" in ax.get_title()


def test_bars_of_one_species_are_those_of_that_species_and_exact_ones_have_no_whiskers(
    tiny, figures
):
    sites, model = tiny
    table = gm.explain.importance(model, sites, groups="variables")
    ax = gm.plot.importance(table, species="Quercus 1")
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, np.sort(table["shapley"].sel(species="Quercus 1")))
    assert "Quercus 1" in ax.get_title() and len(ax.containers) == 1


def test_convergence_draws_the_mean_error_against_the_evaluations(figures):
    rng = np.random.default_rng(0)
    names = ("evaluations", "error", "standard_error")
    dims = ("kind", "size", "repeat")
    runs = xr.Dataset(
        {n: (dims, rng.uniform(1, 9, (2, 3, 5))) for n in names}, {"kind": ["plain", "latin"]}
    ).assign_attrs(metric="auc", exact=64)
    ax = gm.plot.convergence(runs)
    for kind, line in zip(("plain", "latin"), [x for x in ax.lines if x.get_marker() == "o"]):
        assert line.get_label() == kind
        mean_run = runs.sel(kind=kind).mean("repeat")
        np.testing.assert_allclose(line.get_xdata(), mean_run["evaluations"])
        np.testing.assert_allclose(line.get_ydata(), mean_run["error"])
