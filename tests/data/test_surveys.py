"""Surveys in Darwin Core archives: the Humboldt extension states what was looked for."""

from __future__ import annotations

import pytest
from helpers_records import DWC, archive_xml, meta, pack, records_cube

import geomiam as gm
from geomiam.errors import OccurrenceError

ECO = "http://rs.tdwg.org/eco/terms/"
EVENTS = """eventID\tparentEventID\teventDate\tdecimalLatitude\tdecimalLongitude
p\t\t2020\t51.05\t12.05
1\tp\t2020-05-01\t51.15\t12.15
2\tp\t2020-05-02\t\t
3\t\t2020-05-03\t51.25\t12.25
4\t\t2020-05-04\t51.35\t12.35
5\t\t2020-05-05\t51.45\t12.45
"""
OCCURRENCES = """eventID\toccurrenceID\tscientificName\tclass\tgenus\toccurrenceStatus
1\ta\tParus major\tAves\tParus\t
1\tb\tLarus canus\tAves\tLarus\tPRESENT
2\tc\tTurdus merula\tAves\tTurdus\tABSENT
3\td\tParus major\tAves\tParus\tPRESENT
4\te\tVulpes vulpes\tMammalia\tVulpes\tPRESENT
"""
HUMBOLDT = """id\ttargetTaxonomicScope\texcludedTaxonomicScope\tisTaxonomicScopeFullyReported\tisAbsenceReported\tabsentTaxa
p\tAves\t\ttrue\t\t
1\tAves\tLarus\ttrue\tfalse\t
2\tParus major | Turdus merula | Sitta europaea\t\tTRUE\t\t
3\tAves\t\tfalse\ttrue\tTurdus merula | Corvidae
4\tAves\t\t\tfalse\tParus major
"""


def survey_archive():
    occurrence = meta(OCCURRENCES.split("\n")[0].split("\t"), core=False)
    humboldt = meta(
        [ECO + t for t in HUMBOLDT.split("\n")[0].split("\t")],
        core=False,
        row_type=ECO + "Event",
        file="humboldt.txt",
    )
    event = meta(EVENTS.split("\n")[0].split("\t"), row_type=DWC + "Event", file="event.txt")
    return {
        "meta.xml": archive_xml(event, occurrence, humboldt),
        "event.txt": EVENTS,
        "occurrence.txt": OCCURRENCES,
        "humboldt.txt": HUMBOLDT,
    }


def test_what_a_survey_looked_for_and_did_not_detect_is_absent(tmp_path):
    records = gm.read_records(pack(tmp_path / "survey.zip", survey_archive()))
    labels = {(r.eventID, r.species): (r.presence, r.absenceInferred) for r in records.itertuples()}
    gull, tit, thrush, nuthatch, fox = (
        *("Larus canus", "Parus major", "Turdus merula"),
        *("Sitta europaea", "Vulpes vulpes"),
    )
    assert labels == {
        ("1", tit): (1, False),
        ("1", gull): (1, False),  # outside the scope, and still recorded
        ("1", thrush): (0, True),
        ("2", thrush): (0, False),  # stated as absent
        ("2", tit): (0, True),
        ("2", nuthatch): (0, True),  # in the scope by name, never recorded
        ("3", tit): (1, False),
        ("3", thrush): (0, True),  # in absentTaxa; Aves is not fully reported
        ("4", fox): (1, False),  # absences were not reported
    }  # the parent p holds records of all birds in its children, 5 has no scope
    places = records.set_index(["eventID", "species"])[["lon", "lat"]]
    assert places.loc[("2", nuthatch)].tolist() == [12.05, 51.05]  # of its parent
    assert places.loc[("1", thrush)].tolist() == [12.15, 51.15]
    dates = records.set_index(["eventID", "species"])["eventDate"]
    assert dates[("3", thrush)] == "2020-05-03"
    sites = gm.sample(records_cube(), records)
    presence = sites["presence"].to_pandas()
    assert presence[fox].notna().sum() == 1 and presence[thrush].eq(0).sum() == 3


def test_scope_terms_in_the_table_of_events_count_too(tmp_path):
    files = survey_archive()
    header, *rows = EVENTS.strip().split("\n")
    header += "\ttargetTaxonomicScope\tisTaxonomicScopeFullyReported"
    rows = [r + ("\tParus\ttrue" if r[0] == "5" else "\t\t") for r in rows]
    fields = [ECO + t if "axonomic" in t else t for t in header.split("\t")]
    event = meta(fields, row_type=DWC + "Event", file="event.txt")
    occurrence = meta(OCCURRENCES.split("\n")[0].split("\t"), core=False)
    files |= {"meta.xml": archive_xml(event, occurrence), "event.txt": "\n".join([header, *rows])}
    records = gm.read_records(pack(tmp_path / "a.zip", files))
    absences = records[records["absenceInferred"]]
    assert absences[["eventID", "species", "presence"]].values.tolist() == [["5", "Parus major", 0]]


def test_an_event_may_have_several_scopes(tmp_path):
    files = survey_archive()
    files["humboldt.txt"] += "5\tParus\t\ttrue\t\t\n5\tTurdus\t\ttrue\t\t\n"
    records = gm.read_records(pack(tmp_path / "a.zip", files))
    at_five = records[records["eventID"] == "5"]
    assert sorted(at_five["species"]) == ["Parus major", "Turdus merula"]
    assert (at_five["presence"] == 0).all()


def test_too_many_absences_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("geomiam.data.records.surveys.MAX_ABSENCES", 3)
    with pytest.raises(OccurrenceError, match=r"imply .* absences, more than 3: split the archive"):
        gm.read_records(pack(tmp_path / "a.zip", survey_archive()))


def test_events_that_contain_each_other_end(tmp_path):
    files = survey_archive()
    files["event.txt"] = files["event.txt"].replace("p\t\t2020", "p\t2\t2020")
    assert len(gm.read_records(pack(tmp_path / "a.zip", files))) >= 5
