"""Tests of the reader of users' files: nothing lost unseen, one error with file and line, whatever
the bytes.
"""

import csv
import gzip
import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from culturepark import tables
from culturepark.errors import InputError
from culturepark.tables import Layout
from tests.conftest import DATA, ROOT

SHAPES = DATA / "moderation" / "shapes"
real = pytest.mark.skipif(not SHAPES.is_dir(), reason=f"no files in {SHAPES}; set CULTUREPARK_DATA")
NASTY = st.text(
    st.one_of(
        st.sampled_from("\",;\t|'\n\r\u2028\u2029\x85\x0b\x0c\x1c\ufeff=+-@ ab😀"),
        st.characters(exclude_categories=("Cs",), exclude_characters="\0"),
    ),
    max_size=12,
)


@pytest.fixture
def save(tmp_path):
    """Write a file's bytes or text, return its path."""

    def write(name, held):
        (tmp_path / name).write_bytes(
            held if isinstance(held, bytes) else held.encode("utf-8", "surrogatepass")
        )
        return tmp_path / name

    return write


def cells(path, **how):
    """Return a table's rows as lists of cells."""
    return [list(row.cells.values()) for row in tables.read(path, Layout(**how)).rows]


# ------------------------------------------------------------------- lines


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl", "a.json"])
def test_a_line_ends_at_a_line_feed_and_nowhere_else(save, name):
    said = "one\u2028two\u2029three\x85four\x0bfive\x1c"
    row = (
        f"text,n\n{said},1\n"
        if name[2:] in ("csv", "tsv", "txt")
        else json.dumps([{"text": said, "n": 1}], ensure_ascii=False)
    )
    row = row[1:-1] + "\n" if name == "a.jsonl" else row
    (only,) = tables.read(save(name, row)).rows
    assert only.cells["text"] == said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_a_byte_order_mark_says_the_encoding(save, name, encoding):
    text = {
        "a.csv": "text;n\nÄpfel 😀;1\n",
        "a.jsonl": '{"text": "Äpfel 😀"}\n',
        "a.json": '[{"text": "Äpfel 😀"}]',
    }[name]
    assert tables.read(save(name, text.encode(encoding))).rows[0].cells["text"] == "Äpfel 😀"


def test_another_encoding_is_named_and_then_read(save):
    path = save("a.csv", "text,n\nok,1\ncafé,2\n".encode("cp1252"))
    with pytest.raises(
        InputError, match=r"a\.csv:3:4: not UTF-8 text \(byte 0xe9\).*-o encoding=cp1252"
    ):
        tables.read(path)
    assert cells(path, encoding="cp1252") == [["ok", "1"], ["café", "2"]]
    assert cells(save("b.csv", "a,b\n1,Ж\n".encode("utf-16-le")), encoding="utf-16-le") == [
        ["1", "Ж"]
    ]


def test_half_a_character_is_replaced_and_counted_raw_or_escaped(save):
    lines = (
        '{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n{"te\\udc00xt": ["\ud83d"]}\n'
    )
    table = tables.read(save("a.jsonl", lines))
    assert [next(iter(r.cells.items())) for r in table.rows] == [
        ("text", "cut \ufffd"),
        ("text", "whole 😀"),
        ("te\ufffdxt", ["\ufffd"]),
    ]
    assert table.notices == {"halves of characters, replaced by U+FFFD": 3}
    assert cells(save("a.csv", "a\n\ud83d\ude00 \ude00\n")) == [["😀 \ufffd"]]


def test_blank_lines_are_passed_over_and_counted(save):
    table = tables.read(save("a.jsonl", '\n{"a": 1}\n  \n\r\n{"a": 2}\n\n'))
    assert [(r.line, r.cells["a"]) for r in table.rows] == [(2, 1), (5, 2)]
    assert table.notices == {"blank lines, passed over": 4}
    assert cells(save("a.csv", "a,b\n\n1,2\n  \n,\n")) == [["1", "2"], ["", ""]]


def test_a_packed_file_is_read_and_a_damaged_one_named(save):
    packed = gzip.compress("a,b\n1,é\n".encode() * 1)
    assert cells(save("a.csv.gz", packed)) == [["1", "é"]]
    with pytest.raises(InputError, match="damaged gzip data"):
        tables.read(save("b.csv.gz", packed[:-9]))


def test_a_line_has_a_bound(save, monkeypatch):
    monkeypatch.setattr("culturepark.tables.lines.LONGEST", 1000)
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:2: a line of more than 1,000 bytes"):
        tables.read(save("a.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a": "' + b"x" * 10**6)))


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        ("a.csv", b"a,b\n1,\x00\n", r"a\.csv:2:3: a NUL character"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-16 without its byte order mark"),
        ("a.csv", b"PK\x03\x04rest", "an Excel workbook; unpack it, or save it as CSV"),
        ("a.csv", b"a,b\r1,2\r3,4", "end in a carriage return alone"),
        ("a.csv", b"a,b\n1,2\rx\n", r"a\.csv:2: no CSV row: a carriage return"),
        ("a.csv", b"a,b\n1,2,3\n", r"a\.csv:2: 3 columns; its first line has 2"),
        ("a.csv", b"a, a\n1,2\n", r"a\.csv:1: two columns are called 'a'"),
        (
            "a.csv",
            b'a,b\n1,"x" y\n',
            r"a\.csv:2: no CSV row: text follows a closing quote.*quoting=none",
        ),
        (
            "a.csv",
            b'a,b\n1,2\n3,"4\n5,6\n',
            r"a\.csv:3: no CSV row: a quote opens here and never closes; 1 more lines",
        ),
        ("a.jsonl", b'{"a": 1, "a": 2}\n', r"a\.jsonl:1: the key 'a' stands twice"),
        ("a.jsonl", b'{"a": 1}\n{"a": "x\n', r"a\.jsonl:2: not JSON: Unterminated string.* cut"),
        (
            "a.json",
            b'[\n {"a": 1,\n  "b": 2,\n }\n]',
            r"not JSON: a comma before a closing bracket.*\(line 4, column 2\)",
        ),
        ("a.jsonl", b"[" * 100_000, "nested too deep|not JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", r"a\.jsonl:1: not JSON: Exceeds the limit"),
        (
            "a.jsonl",
            b'{"a": 1}\r{"a": 2}\r',
            r"a\.jsonl:1: not JSON: its lines end in a carriage return alone; save",
        ),
        (
            "a.jsonl",
            b'{\n "a": 1\n}\n{\n "a": 2\n}\n',
            r"does an object span several lines\? Write each object on one line",
        ),
        (
            "a.json",
            b'{\n "a": 1\n}\n{\n "a": 2\n}\n',
            r"does an object span several lines\? Write each object on one line",
        ),
        (
            "a.jsonl",
            b'{"a": 1}{"a": 2}\n',
            r"a\.jsonl:1: not JSON: one object follows another; put each on a line",
        ),
        (
            "a.csv",
            b'[{"a": 1, "b": 2}]',
            r"a\.csv: this seems to be JSON, not a table; name it \.json, or \.jsonl",
        ),
        ("a.tsv", b'\n{"a": 1}\n{"a": 2}\n', "this seems to be JSON, not a table"),
        (
            "a.json",
            b"a,b\n1,2\n",
            r"it begins 'a,b'.*This seems to be a table: name such a file \.csv or \.tsv",
        ),
        ("a.jsonl", b'"a"\t"b"\n1\t2\n', "This seems to be a table"),
        ("a.json", b" \n", r"a\.json: the file is empty"),
        ("a.jsonl", b"{'a': 1}\n", "a key in double quotes should stand here"),
        ("a.json", b'{"a": [], "b": []}', "neither a list of objects nor"),
        ("a.xlsx", b"", r"files that end in \.csv"),
    ],
)
def test_what_cannot_be_read_is_one_error_with_its_place(save, name, held, said):
    with pytest.raises(InputError, match=said):
        tables.read(save(name, held))


def test_what_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        tables.read(tmp_path / "none.csv")


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", "|")])
def test_rows_that_repeat_the_header_are_left_out_and_counted(save, name, mark):
    text = "a,b\n1,2\na, b\n3,4\n\ufeffa,b\nb,a\n".replace(",", mark)
    table = tables.read(save(name, text))
    assert [list(row.cells.values()) for row in table.rows] == [["1", "2"], ["3", "4"], ["b", "a"]]
    assert table.notices == {"rows that repeat the header, left out": 2}


@pytest.mark.parametrize("header", ["{a},[b]", "[id],name", '"{""a""}",b'])
def test_a_header_with_brackets_is_still_a_tables(save, header):
    assert cells(save("a.csv", f"{header}\n1,2\n")) == [["1", "2"]]


def test_a_file_without_a_header_is_read_with_its_columns_named(save):
    path = save("a.txt", "good tea\t0\nbad tea\t1\n")
    assert cells(path) == [["bad tea", "1"]]
    table = tables.read(path, Layout.from_options({"columns": "text, label"}))
    assert [dict(r.cells) for r in table.rows] == [
        {"text": "good tea", "label": "0"},
        {"text": "bad tea", "label": "1"},
    ]
    with pytest.raises(InputError, match="names the columns already"):
        tables.read(save("b.csv", "text,label\nx,1\n"), Layout(columns=("text", "label")))
    with pytest.raises(InputError, match="2 columns; the option columns names 3"):
        tables.read(path, Layout(columns=("a", "b", "c")))


def test_a_quote_is_a_character_where_the_option_says_so(save):
    path = save("a.tsv", 'text\tlabel\n"Stop\t1\n5" pipe\t0\nhe said "no"\t1\n"\t0\n')
    with pytest.raises(InputError, match=r"a\.tsv:2: .*quoting=none"):
        tables.read(path)
    assert cells(path, quoting="none") == [
        ['"Stop', "1"],
        ['5" pipe', "0"],
        ['he said "no"', "1"],
        ['"', "0"],
    ]


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ","), ("a.txt", ";")])
def test_a_stray_quote_that_swallows_rows_is_told_with_its_line(save, name, mark):
    rows = [
        f"text{mark}label",
        *(f"post {n}{mark}x" for n in range(9)),
        f'"stray{mark}x',
        *(f"more {n}{mark}y" for n in range(500)),
        f'end"{mark}y',
        "",
    ]
    path = save(name, "\n".join(rows))
    with pytest.raises(
        InputError, match=r":11: a quote opens here and closes on line 512, and 50[12] of the 502"
    ):
        tables.read(path)
    kept = tables.read(path, Layout(quoting="minimal"))
    assert len(kept.rows) == 10 and kept.notices["line breaks within quoted cells"] == 501
    assert kept.notices["lines of the longest row, which begins on line 11"] == 502
    assert len(cells(path, quoting="none")) == 511


def test_a_text_of_many_lines_is_a_cell(save):
    said = "Dear all,\n\nfirst, tea, then cake,\nand more tea.\n" * 20
    text = io.StringIO()
    csv.writer(text).writerows([("text", "label"), (said, "x"), ("short", "y")])
    assert cells(save("a.csv", text.getvalue())) == [[said, "x"], ["short", "y"]]


def test_a_first_line_by_which_a_spreadsheet_names_the_delimiter_is_no_row(save):
    (row,) = tables.read(save("a.csv", "sep=;\r\ntext, said;label\r\nx;1\r\n")).rows
    assert row == (3, {"text, said": "x", "label": "1"})


def test_columns_without_a_name_are_called_by_their_place(save):
    assert tables.read(save("a.csv", ",text,,label\n0,x,,y\n")).columns == (
        "column 1",
        "text",
        "column 3",
        "label",
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"quoting": "all"}, "quoting = 'all'.*none"),
        ({"delimiter": "||"}, "one character"),
        ({"encoding": "utf8x"}, "Did you mean 'utf-8'"),
        ({"encoding": "base64"}, "no text encoding"),
        ({"columns": "a,a"}, "names 'a' twice"),
    ],
)
def test_an_option_that_cannot_be_is_named(option, said):
    with pytest.raises(InputError, match=said):
        Layout.from_options(option)


def test_json_lines_may_be_called_json_and_lists_jsonl(save):
    assert cells(save("a.json", '{"a": 1}\n{"a": [2]}\n')) == [[1], [[2]]]
    assert cells(save("a.jsonl", '\n [{"a": 1},\n{"a": 2}]')) == [[1], [2]]
    assert cells(save("b.json", '{"v": 1, "rows": [{"a": 1}]}')) == [[1]]


@pytest.mark.parametrize(
    "cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")', "-", "+"]
)
def test_a_cell_that_begins_a_formula_is_made_safe(cell):
    (row,) = csv.reader(
        io.StringIO(
            tables.safe_table(f'"{cell.replace(chr(34), chr(34) * 2)}",x\n'.encode()).decode(),
            newline="",
        )
    )
    assert row == [f"'{cell}", "x"]


def test_numbers_and_a_table_that_is_safe_stay_as_they_are():
    data = b"step,loss\n1,-0.5\n2,+1e-3\n"
    assert tables.safe_table(data) == data and tables.safe_table(b"\xff=1") == b"\xff=1"


def test_no_other_module_writes_csv():
    writers = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "culturepark").rglob("*.py")
        if "csv.writer" in p.read_text("utf-8")
    }
    assert writers == {
        "culturepark/testing/training_files.py",
        "culturepark/tables/cells.py",
    }  # both through safe_cell


# -------------------------------------------------------------- properties


@settings(deadline=None)
@given(
    st.lists(st.tuples(NASTY, NASTY, NASTY), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".txt", "|")]),
)
def test_any_table_that_the_csv_module_writes_is_read_as_it_was(
    tmp_path_factory, rows, end, encoding, kind
):
    text, (suffix, mark) = io.StringIO(), kind
    csv.writer(text, delimiter=mark, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(
        [("one", "two", "three"), *rows]
    )
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(text.getvalue().encode(encoding))
    assert cells(path, quoting="minimal") == [list(row) for row in rows]


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            NASTY, st.one_of(NASTY, st.none(), st.integers(), st.lists(NASTY)), min_size=1
        ),
        min_size=1,
    ),
    st.booleans(),
)
def test_any_objects_that_the_json_module_writes_are_read_as_they_were(
    tmp_path_factory, rows, ascii_only
):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(
        json.dumps(rows, ensure_ascii=ascii_only, indent=1), "utf-8", newline=""
    )
    lines = "\r\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    (folder / "a.jsonl").write_text("\ufeff" + lines, "utf-8", newline="")
    for name in ("a.json", "a.jsonl"):
        assert [dict(r.cells) for r in tables.read(folder / name).rows] == rows


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('",;\t|\n\r{}[]:ax1\\ud83\0é', max_size=80).map(lambda t: t.encode()),
    ),
    st.sampled_from(tables.SUFFIXES),
    st.sampled_from(["", "none", "minimal"]),
    st.sampled_from(["", "utf-16", "cp1252", "shift_jis", "utf-7", "cp037"]),
)
@example(b"\x1f\x8b\x08", ".csv", "", "")
@example(b"\xff\xfe\x00", ".json", "", "")
def test_whatever_the_bytes_there_are_rows_or_one_input_error(
    tmp_path_factory, held, suffix, quoting, encoding
):
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(held)
    try:
        table = tables.read(path, Layout(quoting=quoting, encoding=encoding))
    except InputError as error:
        assert str(path) in str(error)
    else:
        json.dumps([dict(row.cells) for row in table.rows]).encode()


# -------------------------------------------------------------- real files


@pytest.mark.conformance
@real
@pytest.mark.parametrize(
    ("name", "rows"),
    [("told_br.csv", 21000), ("korean_hate_dev.tsv", 471), ("cold_test.csv", 5323)],
)
def test_real_tables_are_read_as_pandas_reads_them(name, rows):
    pandas = pytest.importorskip("pandas")
    table = tables.read(SHAPES / name)
    other = pandas.read_csv(
        SHAPES / name,
        sep=None if name.endswith("csv") else "\t",
        engine="python",
        keep_default_na=False,
        dtype=str,
    )
    assert len(table.rows) == len(other) == rows
    last = table.columns[-1]
    assert [r.cells[last] for r in table.rows] == list(other.iloc[:, -1])
    lines = (SHAPES / name).read_bytes().count(b"\n")
    assert len(table.rows) + 1 + table.notices.get("line breaks within quoted cells", 0) == lines


@pytest.mark.conformance
@real
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_real_json_with_trailing_commas_is_refused_with_its_line(n):
    with pytest.raises(
        InputError, match=r"type\d\.json: not JSON: a comma before a closing bracket.*line \d+"
    ):
        tables.read(DATA / "safeworld" / "culture" / f"type{n}.json")
