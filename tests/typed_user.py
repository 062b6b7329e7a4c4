"""A user's typed script: mypy checks it with the strict flags, and no test runs it.

Every public name is used once, so that a name which is missing from ``__init__.pyi``, or a public
function without types, fails ``make lint``.
"""

import xarray as xr

import geomiam as gm


def species_map(cube: xr.Dataset, records: str, out: str) -> xr.Dataset:
    area = gm.BackgroundArea(within="200 km", beyond=10)
    sites = gm.add_background(gm.sample(cube, records), cube, n=10_000, area=area, rng=0)
    schema: gm.Schema = gm.infer_schema(sites)
    network = gm.NetworkConfig(width=64)
    model: gm.Model = gm.fit(
        sites, schema, network=network, training=gm.TrainingConfig(epoch_steps=1, epochs=3), rng=0
    )
    scores: xr.Dataset = gm.evaluate(model, sites, subsets="unimodal+all")
    print(scores, gm.coverage(cube, schema), gm.__version__)
    model.save(out)
    return gm.predict(cube, gm.load_model(out))


def explanation(cube: xr.Dataset, model: gm.Model) -> xr.Dataset:
    gm.write_map(cube, model, "map.zarr", shapley=True)
    gm.export("map.zarr", "map.tif", layers=["suitability"], style=True)
    return gm.shapley(cube, model)


def every_public_name() -> tuple[object, ...]:
    return (
        gm.sources.CubePlan,
        gm.report,
        gm.reports.ReportOptions(title="Oaks"),
        gm.reports.odmap,
        gm.Backbone,
        gm.Group,
        gm.baselines.Imputed,
        gm.MapOptions(memory_limit="1GB"),
        gm.MapCost,
        gm.MapPlan,
        gm.PredictOptions(mask="land"),
        gm.novelty,
        gm.NoveltyOptions(measures=["mess"]),
        gm.value_of_information,
        gm.ValueOptions(neighbours=10),
        gm.explain.ShapleyOptions(samples=4),
        gm.sources.BuildOptions(repair=True),
        gm.sources.SceneOptions(snow="keep"),
        gm.Modality,
        gm.baselines.Oracle,
        gm.StacSource,
        gm.Variable,
        gm.add_community,
        gm.add_location,
        gm.evaluation.community,
        gm.align,
        gm.baselines,
        gm.build_cube,
        gm.calibrate,
        gm.catalogs(),
        gm.chips,
        gm.correlations,
        gm.cross_validate,
        gm.classify,
        gm.tune,
        gm.evaluation.thresholds,
        gm.demo,
        gm.errors,
        gm.evaluation,
        gm.explain,
        gm.explain.expert_load,
        gm.finetune,
        gm.explain.fit_explainer,
        gm.baselines.fit_imputed,
        gm.baselines.fit_oracle,
        gm.baselines.fit_baseline,
        gm.evaluation.fusion_diagnostic,
        gm.baselines.gap,
        gm.explain.importance,
        gm.masking,
        gm.metrics,
        gm.evaluation.missingness_sweep,
        gm.open_cube,
        gm.open_sites,
        gm.plan_cube,
        gm.plan_map,
        gm.plan_sentinel2,
        gm.plot,
        gm.pretrain,
        gm.project,
        gm.Projection,
        gm.ranges.change,
        gm.read_records,
        gm.clean_records,
        gm.CleaningRules,
        gm.thin_records,
        gm.evaluation.probe,
        gm.evaluation.set_coverage,
        gm.explain.saturation,
        gm.sentinel2,
        gm.sources.landsat,
        gm.sources.sentinel1,
        gm.show_versions,
        gm.sklearn.MiamClassifier,
        gm.splits,
        gm.baselines.recipe,
        gm.write_cube,
        gm.write_sites,
    )
