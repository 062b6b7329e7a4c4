"""Documents of a static STAC catalog are read only if the dates of their links may lie in the period."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("odc.stac", reason="needs pip install 'geomiam[stac]'")
pytest.importorskip("pystac_client", reason="needs pip install 'geomiam[stac]'")

from helpers_stac import JUNE, read, scene

from geomiam.sources.stac.link_dates import LinkDates

TOP = "/data/2019/01/stac/catalog.json"
PRODUCT = "S2B_MSIL2A_{}T105031_N0500_R051_T31UDS_20230615T000000"


def is_read(href, *, base=TOP, top=TOP, rel="item", title=None):
    """Return whether a link is followed in a search of June 2020."""
    dates = LinkDates(top, "2020-06-01T00:00:00Z", "2020-06-30T23:59:59Z")
    return bool(dates.selected(base, [{"rel": rel, "href": href, "title": title}]))


@pytest.mark.parametrize("prefix", ["./", "", "../stac/", "/data/2019/01/stac/"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("2020/6/a.json", True),
        ("2020/5/a.json", True),  # one day of margin
        ("2020/07/15/a.json", True),
        ("2020/8/a.json", False),
        ("2020-08/a.json", False),
        ("2020-08-15.json", False),
        ("2019/6/a/a.json", False),
        ("tiles/31/U/FS/2019/6/15/0/a.json", False),
        ("2019/196/027/a.json", True),  # path and row of Landsat are no month
        ("2019/31/a.json", True),
        ("12019/6/a.json", True),
        ("2019/a.json", True),  # a year alone may be a version
        ("2019/12/S2/2020/6/a.json", True),  # two months: one may be that of the processing
        (f"{PRODUCT.format('20200615')}.json", True),
        (f"{PRODUCT.format('20200815')}.json", False),
        (f"{PRODUCT.format('20200815')}/item.json", False),
        (f"2020/6/{PRODUCT.format('20200815')}.json", False),  # a name is more precise
        (f"2019/1/{PRODUCT.format('20200615')}.json", True),
    ],
)
def test_dates_of_names_and_folders_decide(prefix, path, expected):
    assert is_read(prefix + path) == expected


def test_only_folders_below_the_top_count():
    assert is_read("a.json") and is_read("../../../2018/01/a.json")
    assert is_read("/elsewhere/2018/01/a.json") and is_read("https://example.org/2018/01/a.json")
    month = "/data/2019/01/stac/2020/8/catalog.json"
    assert not is_read("./a.json", base=month) and is_read("../6/a.json", base=month)


def test_urls_catalogs_titles_and_paths_of_windows():
    top = "https://example.org/2018/01/catalog.json"
    assert is_read("a.json", base=top, top=top)
    assert not is_read("https://example.org/2018/01/2020/8/a.json?token=1", base=top, top=top)
    assert not is_read("./2020/8/catalog.json", rel="child")
    assert is_read(f"./{PRODUCT.format('20200815')}/catalog.json", rel="child")  # not an item
    assert not is_read("a.json", title=PRODUCT.format("20200815"))
    assert is_read("a.json", title="of 2019/01") and is_read(5)
    windows = r"C:\data\catalog.json"
    assert not is_read("./2020/8/a.json", base=windows, top=windows)
    assert not is_read(r"C:\data\2020\8\a.json", base=windows, top=windows)


@pytest.mark.parametrize("kind", ["Catalog", "Collection"])
def test_catalogs_of_other_months_are_not_opened(tmp_path, kind):
    """Links of other months lead to no file, so that following one would be reported."""
    root = tmp_path / "2019" / "01"
    item = scene(tmp_path / "f", "s", date="2020-06-15T10:50:00Z")
    about = {"stac_version": "1.0.0", "description": "x", "id": "c", "type": "Catalog"}
    documents = {
        "catalog.json": {
            **about,
            "type": kind,
            "links": [{"rel": "child", "href": f"./2020/{m}/catalog.json"} for m in range(1, 13)],
        },
        "2020/6/catalog.json": {**about, "links": [{"rel": "item", "href": "./s.json"}]},
        "2020/5/catalog.json": {**about, "links": []},
        "2020/7/catalog.json": {**about, "links": []},
        "2020/6/s.json": item,
    }
    for name, document in documents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(document))
    ds = read(str(root), time=JUNE)
    assert ds.sizes["time"] == 1 and ds.attrs["failed_assets"] == []
    assert (
        "9 catalogs were not read: by the dates in their names or folders" in ds.attrs["notes"][0]
    )
