"""Tests of what surveys say: made-up files of a few lines, and the real ones where they are at
hand.
"""

import csv
import gzip
import json
import os
import statistics
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culturepark.errors import NotFound, SurveyError
from culturepark.surveys import build, hofstede, load_dimensions, load_shipped, read_release
from culturepark.surveys.scales import SCALES

DATA = Path(os.environ.get("CULTUREPARK_DATA", Path(__file__).parents[2] / "shared" / "data"))
WVS, HOFSTEDE = (
    DATA / "survey" / "wvs7",
    DATA / "survey" / "hofstede" / "six_dimensions_2015-08-16.csv",
)
real = pytest.mark.skipif(
    not WVS.is_dir(), reason=f"no survey files in {DATA}; set CULTUREPARK_DATA"
)
ARABIC = ("EGY", "IRQ", "JOR", "LBN", "LBY", "MAR", "TUN")

# Nobody's answers: a made-up release of four people in two countries.
SMALL = """\
B_COUNTRY,B_COUNTRY_ALPHA,W_WEIGHT,Q1,Q2,Q2_3
32,ARG,0.5,1,4,9
32,ARG,1.5,2,-1,9
76,BRA,1,3.0,,9
76,BRA,1,3,-4,9
Avg,,1,2.25,4,9
"""


@pytest.fixture
def save(tmp_path):
    """Write a survey file, return its path."""

    def write(text, name="survey.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


# ------------------------------------------------------------------ reading


def test_shares_are_weighted_and_counts_are_not(save):
    figures = read_release(save(SMALL))
    shares = figures.get("ARG", "Q1")
    assert (shares.n, shares.missing, shares.shares) == (2, 0.0, {1: 0.25, 2: 0.75})
    assert shares.mean == 1.75 and shares.modal == 2
    assert figures.weighted == ("ARG", "BRA")


def test_without_weights_everyone_counts_the_same(save):
    figures = read_release(
        save("B_COUNTRY,B_COUNTRY_ALPHA,Q1\n32,ARG,1\n32,ARG,2\n32,ARG,2\n32,ARG,2\n")
    )
    assert figures.get("ARG", "Q1").shares == {1: 0.25, 2: 0.75}
    assert figures.weighted == ()


def test_missing_answers_are_counted_apart(save):
    shares = read_release(save(SMALL)).get("ARG", "Q2")
    assert (shares.n, shares.missing, shares.shares) == (1, 0.5, {4: 1.0})


@pytest.mark.parametrize(
    "cell", ["", " ", "NA", "N/A", "nan", "NULL", "#NULL!", ".", ".a", ".z", ":", "-5", "-1.0"]
)
def test_what_stands_for_no_answer_is_missing(save, cell):
    shares = read_release(save(f"B_COUNTRY,B_COUNTRY_ALPHA,Q1\n32,ARG,1\n32,ARG,{cell}\n")).get(
        "ARG", "Q1"
    )
    assert (shares.n, shares.missing, shares.shares) == (1, 0.5, {1: 1.0})


def test_a_code_beyond_its_items_scale_is_missing_and_noticed(save):
    figures = read_release(
        save(
            "B_COUNTRY,B_COUNTRY_ALPHA,Q1,Q48,Q223\n32,ARG,1,9,32001\n32,ARG,9,10,99\n32,ARG,99,99,999\n"
        )
    )
    assert [figures.get("ARG", q).shares for q in ("Q1", "Q48", "Q223")] == [
        {1: 1},
        {9: 0.5, 10: 0.5},
        {32001: 1},
    ]
    assert figures.notices == {
        "Q1: 9, not on its scale, 1 to 4: missing": 1,
        "Q1: 99, not on its scale, 1 to 4: missing": 1,
        "Q48: 99, not on its scale, 1 to 10: missing": 1,
        "Q223: 99, which such files write for no answer: missing": 1,
        "Q223: 999, which such files write for no answer: missing": 1,
    }


def test_a_person_who_stands_twice_counts_once_and_is_reported(save):
    rows = "32,ARG,7,1\n32,ARG,8,2\n76,BRA,7,2\n32,ARG,7,1\n32,ARG,7,2\n32,ARG,,2\n32,ARG,,2\n"
    figures = read_release(save("B_COUNTRY,B_COUNTRY_ALPHA,D_INTERVIEW,Q1\n" + rows))
    assert figures.get("ARG", "Q1").shares == {1: 0.25, 2: 0.75}
    assert figures.notices == {"interviews that stand twice, the later ones left out": 2}


@pytest.mark.parametrize("code", ["NA", "-5", "-5.0", "0", "", " ", ".", ".a"])
def test_an_interview_without_an_id_stands_for_itself(save, code):
    rows = "".join(f"32,ARG,{code},{1 + n % 2}\n" for n in range(10))
    figures = read_release(save("B_COUNTRY,B_COUNTRY_ALPHA,D_INTERVIEW,Q1\n" + rows))
    assert figures.get("ARG", "Q1").n == 10 and not figures.notices


def test_a_column_of_ids_by_which_most_people_would_be_left_out_is_an_error(save):
    rows = "76,BRA,1,1\n" + "32,ARG,9999,1\n" * 3
    with pytest.raises(
        SurveyError, match="D_INTERVIEW: 2 of 3 rows from ARG have the id of an earlier row"
    ):
        read_release(save("B_COUNTRY,B_COUNTRY_ALPHA,D_INTERVIEW,Q1\n" + rows))


def test_a_header_that_stands_again_in_a_release_is_counted(save):
    head = "B_COUNTRY_ALPHA,Q1\n"
    figures = read_release(save(head + "ARG,1\n" + head + "ARG,2\n"))
    assert figures.get("ARG", "Q1").n == 2
    assert figures.notices == {"rows that repeat the header, left out": 1}


@pytest.mark.parametrize(
    "held", [SMALL.encode("utf-16-le"), b'B_COUNTRY_ALPHA,Q1\nARG,"1" x\n', b"\xff\xfeB"]
)
def test_a_surveys_error_names_no_option_that_a_run_does_not_have(save, held):
    with pytest.raises(SurveyError) as error:
        read_release(save(held))
    assert "-o " not in str(error.value)


def test_a_packed_release_is_read(save):
    assert (
        read_release(save(gzip.compress(SMALL.encode()), "survey.csv.gz")).table
        == read_release(save(SMALL)).table
    )


def test_an_item_without_a_valid_answer_is_absent(save):
    figures = read_release(save(SMALL))
    assert figures.get("BRA", "Q2") is None
    assert figures.items("BRA") == ("Q1",)


def test_only_exact_names_are_items_and_averages_are_no_people(save):
    figures = read_release(save(SMALL))
    assert figures.countries() == ("ARG", "BRA")
    assert figures.items("ARG") == ("Q1", "Q2")
    assert figures.get("BRA", "Q1").n == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters_give_the_same_figures(save, encoding, delimiter):
    text = (
        SMALL.replace("B_COUNTRY,", "REGION,B_COUNTRY,", 1)
        .replace("\n32", "\nCórdoba,32")
        .replace("\n76", "\nPará,76")
    )
    text = (
        text.replace("Avg", ",Avg")
        .replace(",", delimiter)
        .replace("0.5", "0,5" if delimiter == ";" else "0.5")
    )
    assert read_release(save(text, encoding=encoding)) == read_release(save(SMALL))


def test_quoted_and_labelled_headers_are_understood(save):
    text = (
        '"B_COUNTRY: ISO code","B_COUNTRY_ALPHA: ISO alpha-3","Q1: Important: family,'
        ' kin"\r\n"32","ARG","1"\r\n'
    )
    assert read_release(save(text)).get("ARG", "Q1").shares == {1: 1.0}


def test_countries_and_items_choose_what_is_read(save):
    figures = read_release(save(SMALL), countries={"ARG"}, items=["Q2"])
    assert figures.countries() == ("ARG",)
    assert figures.items("ARG") == ("Q2",)


def test_a_folder_joins_its_files(save, tmp_path):
    save("B_COUNTRY,B_COUNTRY_ALPHA,Q1\n32,ARG,1\n", "ARG.csv")
    save("B_COUNTRY,B_COUNTRY_ALPHA,W_WEIGHT,Q1,Q7\n76,BRA,1,1,2\n", "BRA.CSV")
    figures = read_release(tmp_path, items=["Q7", "Q1"])
    assert figures.countries() == ("ARG", "BRA")
    assert (figures.items("ARG"), figures.items("BRA"), figures.weighted) == (
        ("Q1",),
        ("Q1", "Q7"),
        ("BRA",),
    )


def test_a_country_in_two_files_would_count_twice(save, tmp_path):
    save(SMALL, "one.csv")
    save(SMALL, "two.csv")
    with pytest.raises(SurveyError, match=r"two\.csv: ARG is in .*one\.csv too"):
        read_release(tmp_path)


# ----------------------------------------------------------------- mistakes

HEADER = "B_COUNTRY,B_COUNTRY_ALPHA,W_WEIGHT,Q1\n"
MISTAKES = {
    "no country code": (
        "B_COUNTRY,ALPHA,Q1\n32,ARG,1\n",
        "no column 'B_COUNTRY_ALPHA' in the first line. Did you mean",
    ),
    "no items": ("B_COUNTRY,B_COUNTRY_ALPHA,V1\n32,ARG,1\n", "no item columns (Q1 to Q290)"),
    "an item twice": ("B_COUNTRY,B_COUNTRY_ALPHA,Q1,Q1\n32,ARG,1,2\n", "columns repeat: Q1"),
    "one quoted cell": (
        '"B_COUNTRY,B_COUNTRY_ALPHA,Q1"\n"32,ARG,1"\n',
        "the whole header is one cell",
    ),
    "UTF-16 without a mark": (SMALL.encode("utf-16-le"), "a binary file, or UTF-16 without"),
    "nothing": (b"", "the file is empty"),
    "blank lines": (b"\xef\xbb\xbf\r\n \r\n", "the file is empty"),
    "SPSS": (b"$FL2@(#) SPSS DATA FILE", "an SPSS file; export it as CSV"),
    "Stata": (b"<stata_dta><header>", "a Stata file; export it as CSV"),
    "Excel or zip": (b"PK\x03\x04\x14\0", "a zip archive or an Excel workbook"),
    "gzip": (b"\x1f\x8b\x08\0", "damaged gzip data"),
    "a header only": (HEADER, "no respondents"),
    "labels for codes": (
        HEADER + "Argentina,ARG,1,Agree\n",
        "no respondents (rows with a numeric B_COUNTRY and a",
    ),
    "a long country code": (
        HEADER + "32,Argentina,1,1\n",
        "line 2, column B_COUNTRY_ALPHA: 'Argentina' is not",
    ),
    "a word for an answer": (
        HEADER + "32,ARG,1,1\n32,ARG,1,abc\n",
        "line 3, column Q1: 'abc' is not an answer code",
    ),
    "half an answer": (HEADER + "32,ARG,1,2.5\n", "line 2, column Q1: '2.5' is not an answer code"),
    "no weight": (
        HEADER + "32,ARG,1,1\n32,ARG,,1\n",
        "line 3, column W_WEIGHT: nothing is not a weight",
    ),
    "a negative weight": (
        HEADER + "32,ARG,-1,1\n",
        "line 2, column W_WEIGHT: '-1' is not a weight",
    ),
    "a weight of nan": (
        HEADER + "32,ARG,nan,1\n",
        "line 2, column W_WEIGHT: 'nan' is not a weight",
    ),
    "a row cut off early": (HEADER + "32,ARG,1,1\n32\n", "line 3: 1 cells, but the header has 4"),
    "an absurd answer": (HEADER + f"32,ARG,1,{'9' * 5000}\n", "line 2, column Q1"),
    "an absurd weight": (
        HEADER + "32,ARG,1e308,1\n",
        "line 2, column W_WEIGHT: '1e308' is not a weight",
    ),
    "a short row": (HEADER + "32,ARG,1\n", "line 2: 3 cells, but the header has 4"),
    "an open quote": (HEADER + '32,ARG,1,"1\n', "a quote opens here and never closes"),
}


@pytest.mark.parametrize(("content", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_named(save, content, message):
    path = save(content)
    with pytest.raises(SurveyError) as error:
        read_release(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_a_code_that_is_no_option_is_an_error_not_missing(save):
    with pytest.raises(
        SurveyError, match=r"line 2, column Q2: '4' is not an option; there are: 1, 2, 3"
    ):
        read_release(save(SMALL), valid={"Q2": range(1, 4)})


def test_unknown_countries_and_items_are_told_the_nearest(save):
    path = save(SMALL)
    with pytest.raises(SurveyError, match=r"no respondents from 'arg'\. Did you mean 'ARG'"):
        read_release(path, countries=["arg"])
    with pytest.raises(SurveyError, match=r"no item 'Q2_3'\. Did you mean 'Q2'"):
        read_release(path, items=["Q2_3"])


def test_a_path_that_holds_no_survey_is_named(save, tmp_path):
    with pytest.raises(SurveyError, match="no CSV file in this folder"):
        read_release(tmp_path)
    save(SMALL)
    with pytest.raises(SurveyError, match=r"no such file. Did you mean 'survey\.csv'"):
        read_release(tmp_path / "surveys.csv")


# --------------------------------------------------------------- properties

CELLS = st.sampled_from(["", "-5", "-4", "-2", "-1", "1", "2", "3", "4", "4.0"])
WEIGHTS = st.floats(0.01, 100)
PEOPLE = st.lists(
    st.tuples(st.sampled_from([("32", "ARG"), ("76", "BRA")]), CELLS, WEIGHTS),
    min_size=1,
    max_size=40,
)


def _read(folder, people):
    path = folder / "survey.csv"
    rows = [f"{number},{code},{weight!r},{cell}\n" for (number, code), cell, weight in people]
    path.write_text("B_COUNTRY,B_COUNTRY_ALPHA,W_WEIGHT,Q1\n" + "".join(rows), encoding="utf-8")
    return read_release(path)


@given(people=PEOPLE)
def test_shares_sum_to_one_and_everyone_is_valid_or_missing(tmp_path_factory, people):
    figures = _read(tmp_path_factory.mktemp("survey"), people)
    for country in figures.countries():
        asked = sum(code == country for (_, code), *_ in people)
        if shares := figures.get(country, "Q1"):
            assert sum(shares.shares.values()) == pytest.approx(1)
            assert 1 - 1e-9 <= shares.mean <= 4 + 1e-9 and min(shares.shares) >= 1
            assert shares.n + round(shares.missing * asked) == asked


@given(people=PEOPLE, rng=st.randoms(use_true_random=False))
def test_the_order_of_people_does_not_matter(tmp_path_factory, people, rng):
    folder = tmp_path_factory.mktemp("survey")
    shuffled = rng.sample(people, len(people))
    assert _read(folder, shuffled) == _read(folder, people)


# ------------------------------------------------------------------ pooling


def test_pooled_countries_weigh_the_same(save):
    rows = "32,ARG,1\n" * 3 + "32,ARG,-1\n" + "76,BRA,2\n"
    pooled = read_release(save("B_COUNTRY,B_COUNTRY_ALPHA,Q1\n" + rows)).pool(["BRA", "ARG"], "Q1")
    assert pooled.shares == {1: 0.5, 2: 0.5}
    assert (pooled.countries, pooled.n, pooled.missing) == (("BRA", "ARG"), 4, 0.2)


def test_a_country_never_asked_is_left_out_of_the_pool(save):
    figures = read_release(save(SMALL))
    assert figures.pool(["ARG", "BRA"], "Q2").countries == ("ARG",)
    assert figures.pool(["BRA"], "Q2") is None


# ------------------------------------------------------------------ shipped


def test_the_shipped_figures_cover_fifteen_countries_and_fifty_items():
    figures = load_shipped()
    assert len(figures.countries()) == 15 and len(build.OPTIONS) == 50
    assert figures.country_name("KOR") == "South Korea"
    with pytest.raises(NotFound, match="Did you mean 'DEU'"):
        figures.country_name("DEX")


def test_every_shipped_share_is_of_a_real_option_and_they_sum_to_one():
    figures = load_shipped()
    for country in figures.countries():
        for item in figures.items(country):
            shares = figures.get(country, item).shares
            assert set(shares) <= set(build.OPTIONS[item])
            assert abs(sum(shares.values()) - 1) < 1e-9


def test_what_was_never_asked_in_china_is_absent():
    never = set(build.OPTIONS) - set(load_shipped().items("CHN"))
    assert len(never) == 18 and "Q125" in never
    assert load_shipped().get("CHN", "Q33").modal == 4  # disagree


def test_arab_countries_are_pooled_without_those_never_asked():
    assert load_shipped().pool(ARABIC, "Q27").countries == ARABIC
    assert load_shipped().pool(ARABIC, "Q226").countries == ("LBY", "MAR", "TUN")


@real
@pytest.mark.parametrize(
    ("country", "file"), [("CHN", "CHN"), ("ARG", "ARG"), ("JOR", "arab_countries")]
)
def test_shipped_figures_equal_an_independent_count(country, file):
    with (WVS / f"{file}.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["B_COUNTRY_ALPHA"] == country]
    for item in build.OPTIONS:
        answers = [int(row[item]) for row in rows if int(row[item]) >= 0]
        shares = load_shipped().get(country, item)
        if not answers:
            assert shares is None
            continue
        assert shares.shares == pytest.approx(
            {c: n / len(answers) for c, n in Counter(answers).items()}, abs=1e-5
        )
        assert shares.mean == pytest.approx(statistics.fmean(answers), abs=1e-4)
        assert (shares.n, round(shares.missing * len(rows))) == (
            len(answers),
            len(rows) - len(answers),
        )


@real
def test_no_real_code_is_beyond_its_scale():
    figures = read_release(WVS)
    assert set(figures.notices) == {"rows that are no respondents, left out"}


CODEBOOK = DATA / "survey" / "worldvaluesbench" / "codebook.json"


@pytest.mark.skipif(not CODEBOOK.is_file(), reason=f"no {CODEBOOK}; set CULTUREPARK_DATA")
def test_every_scale_is_the_codebooks():
    for item, entry in json.loads(CODEBOOK.read_text("utf-8")).items():
        codes = {
            int(code) for code in entry["choices"] if code.lstrip("-").isdigit() and int(code) >= 0
        }
        if item in SCALES and codes:
            assert codes == set(SCALES[item]), item


@real
def test_the_shipped_files_are_what_build_makes_of_the_data():
    folder = Path(build.__file__).parent
    kept = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    figures = read_release(WVS, countries=build.COUNTRIES, items=build.OPTIONS, valid=build.OPTIONS)
    assert build.build_survey(figures, date.fromisoformat(kept["computed"])) == kept
    assert build.build_hofstede(HOFSTEDE) == json.loads(
        (folder / "hofstede.json").read_text(encoding="utf-8")
    )


# ----------------------------------------------------------------- hofstede


def test_hofstede_has_111_countries_and_regions():
    assert len({d.code for d in load_dimensions()}) == 111
    assert hofstede("GER").title == "Germany"


def test_unpublished_dimensions_are_none():
    def published(code):
        return [
            v
            for v in hofstede(code).model_dump(exclude={"code", "title"}).values()
            if v is not None
        ]

    assert len(published("JOR")) == 2
    assert len(published("ARA")) == 6


def test_an_unknown_code_is_told_the_nearest_and_what_an_iso_code_is_called_here():
    with pytest.raises(NotFound, match="Did you mean 'JOR'"):
        hofstede("JRD")
    with pytest.raises(NotFound, match="where Germany is 'GER'"):
        hofstede("DEU")
