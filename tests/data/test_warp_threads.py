"""Warping in threads leaves the filters of warnings as they are, although rasterio replaces them."""

import threading
import warnings

import numpy as np
import odc.geo.warp
from odc.geo.geobox import GeoBox

from geomiam.data.grid.warp import _reprojected

BOX = GeoBox.from_bbox((0, 0, 4, 4), crs="EPSG:32631", resolution=1)


def test_threads_that_overlap_leave_the_filters_as_they_are(monkeypatch):
    """The first thread leaves before the second one, which restores the filters of the first."""
    inside, left = threading.Event(), threading.Event()

    def ignoring(pixels, out, *_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not inside.is_set() and pixels[0, 0] == 1:
                inside.wait(5)
            else:
                inside.set()
                left.wait(5)
        return out

    monkeypatch.setattr(odc.geo.warp, "rio_reproject", ignoring)

    def first():
        _reprojected(np.ones((4, 4)), BOX, dst=BOX, resampling="nearest")
        left.set()

    def second():
        _reprojected(np.zeros((4, 4)), BOX, dst=BOX, resampling="nearest")

    before = list(warnings.filters)
    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
        threads[0].join(0.2)
    for thread in threads:
        thread.join(20)
    assert left.is_set()
    assert list(warnings.filters) == before
