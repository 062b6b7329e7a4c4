"""Real STAC servers on localhost: a static one by pip alone, and pgstac where PostgreSQL is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers_stac import at

SILENT: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def stored_items(folder: Path, collection: str, base: str) -> list[dict[str, Any]]:
    """Items of a collection of a static STAC catalog that a server at ``base`` has the files of."""
    paths = sorted((folder / collection).glob("*/*.json"))
    items = ((p, json.loads(p.read_text("utf-8"))) for p in paths)
    return [
        {**at(i, f"{base}/{collection}/{p.parent.name}"), "collection": collection, "links": []}
        for p, i in items
    ]


def write_stac_catalog(folder: Path, items: Iterable[Mapping[str, Any]]) -> Path:
    """Write a static STAC catalog of items of one collection; links to files below are relative."""
    import pystac

    read = [pystac.Item.from_dict(dict(i)) for i in items]
    name = str(read[0].collection_id)
    collection = pystac.Collection(name, "scenes of the tests", pystac.Extent.from_items(read))
    collection.add_items(read)
    catalog = pystac.Catalog("tests", "scenes of the tests")
    catalog.add_child(collection)
    catalog.normalize_hrefs(str(folder))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    return folder


@contextlib.contextmanager
def static_api(folder: Path) -> Iterator[str]:
    """Serve a static STAC catalog as a STAC API; the files below it too, by HTTP ranges."""
    pytest.importorskip("stac_fastapi.static", reason="needs pip install stac-fastapi-static")
    port = _free_port()
    settings = {"catalog_href": f"file://{folder.resolve()}/catalog.json", "app_port": str(port)}
    with _uvicorn(sys.executable, "stac_fastapi.static.app:app", port, settings) as url:
        yield url


@contextlib.contextmanager
def pgstac_api(collections: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[str]:
    """Load items by collection into a separate PostgreSQL, and serve them as a STAC API."""
    bin_, venv = pgstac_programs()
    # PostgreSQL's user must reach it, which it cannot below a folder of pytest's.
    state = Path(tempfile.mkdtemp(prefix="pgstac"))
    try:
        with _postgres(bin_, state) as env:
            _load(venv / "bin" / "pypgstac", state, collections, env)
            app = "stac_fastapi.pgstac.app:create_app"
            with _uvicorn(venv / "bin" / "python", app, _free_port(), env, "--factory") as url:
                yield url
    finally:
        shutil.rmtree(state, ignore_errors=True)


def pgstac_programs() -> tuple[Path, Path]:
    """Return the folder of PostgreSQL's programs and the venv of pgstac; skip where they are not."""
    bins = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("pg_ctl")
    bins += [Path(on_path).resolve().parent] if on_path else []
    result = next((b for b in bins if (b / "initdb").exists()), None)
    if result is None or not _has_postgis(result):
        pytest.skip("no PostgreSQL with PostGIS; apt-get install postgresql-15-postgis-3")
    venv = Path(os.environ.get("GEOMIAM_PGSTAC_VENV", sys.prefix))
    check = "import pypgstac, psycopg, stac_fastapi.pgstac, uvicorn"
    if subprocess.run([venv / "bin" / "python", "-c", check], **SILENT).returncode:
        pytest.skip(
            "no pgstac; pip install 'stac-fastapi-pgstac[server]' 'pypgstac[psycopg]' into a "
            "separate venv and name that in GEOMIAM_PGSTAC_VENV"
        )
    return result, venv


def _has_postgis(bin_: Path) -> bool:
    process = subprocess.run([bin_ / "pg_config", "--sharedir"], capture_output=True, text=True)
    return Path(process.stdout.strip(), "extension", "postgis.control").exists()


@contextlib.contextmanager
def _postgres(bin_: Path, state: Path) -> Iterator[dict[str, str]]:
    """Run PostgreSQL on a free port; yield the settings of its clients."""
    port, data = str(_free_port()), str(state / "data")
    process_options: Any = {"cwd": state, **SILENT}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(state, "postgres")
        process_options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    env = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    trust = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([bin_ / "initdb", "-D", data, *trust], check=True, **process_options)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={state}"
    start_command = ["-w", "-o", f"{options} -c fsync=off", "-l", str(state / "log"), "start"]
    subprocess.run([bin_ / "pg_ctl", "-D", data, *start_command], check=True, **process_options)
    try:
        yield {**env, "PGPASSWORD": "none"}
    finally:
        subprocess.run(
            [bin_ / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **process_options
        )


def _load(
    pypgstac: Path,
    state: Path,
    collections: Mapping[str, Iterable[Mapping[str, Any]]],
    env: Mapping[str, str],
) -> None:
    world = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    collection_fields = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "license": "other",
        "links": [],
    }
    tables: dict[str, list[Any]] = {
        "collections": [
            {**collection_fields, "id": name, "description": "scenes", "extent": world}
            for name in collections
        ],
        "items": [{**i, "collection": c} for c, items in collections.items() for i in items],
    }
    run: Any = {"check": True, "env": {**os.environ, **env}, **SILENT}
    subprocess.run([pypgstac, "migrate"], **run)
    for name, rows in tables.items():
        path = state / f"{name}.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        subprocess.run([pypgstac, "load", name, str(path), "--method", "upsert"], **run)


@contextlib.contextmanager
def _uvicorn(
    python: str | Path, app: str, port: int, env: Mapping[str, str], *arguments: str
) -> Iterator[str]:
    command = [python, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), *arguments]
    server = subprocess.Popen(command, env={**os.environ, **env}, **SILENT)
    try:
        yield _answering(f"http://127.0.0.1:{port}", server)
    finally:
        server.terminate()
        server.wait(10)


def _answering(url: str, server: subprocess.Popen[bytes]) -> str:
    for _ in range(150):
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return url
        except OSError:
            assert server.poll() is None, "the server ended"
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch, bucket: str) -> Iterator[str]:
    """Yield the URL of a local server that speaks S3, with one empty bucket; AWS settings lead to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    url = "http://127.0.0.1:{1}".format(*server.get_host_and_port())
    settings = {"ENDPOINT_URL": url, "DEFAULT_REGION": "us-east-1"}
    settings |= dict.fromkeys(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), "test")
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    try:
        # All servers of a process share their buckets.
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"))
        urllib.request.urlopen(urllib.request.Request(f"{url}/{bucket}", method="PUT"))
        yield url
    finally:
        server.stop()
