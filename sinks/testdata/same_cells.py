"""Compares TABLE.ours.parquet with TABLE.theirs.parquet in the working directory, cell by cell.

Then flips a byte in the last page of each column of ours: pyarrow must notice by the page's
checksum, DuckDB, which passes over those, by that of the Zstandard frame.
"""
import sys

import duckdb
import polars
import pyarrow.parquet as pq

for table in sys.argv[1:]:
    ours, theirs = f"{table}.ours.parquet", f"{table}.theirs.parquet"
    count = duckdb.execute(f"SELECT (SELECT count(*) FROM '{ours}'), (SELECT count(*) FROM '{theirs}')").fetchone()
    assert count[0] == count[1] > 0, (table, count)
    for a, b in ((ours, theirs), (theirs, ours)):
        differ = duckdb.execute(f"SELECT count(*) FROM (SELECT * FROM '{a}' EXCEPT ALL SELECT * FROM '{b}')").fetchone()[0]
        which = [c for c, in duckdb.execute(f"SELECT column_name FROM (DESCRIBE SELECT * FROM '{a}')").fetchall()
                 if duckdb.execute(f"SELECT count(*) FROM (SELECT \"{c}\" FROM '{a}' EXCEPT ALL SELECT \"{c}\" FROM '{b}')").fetchone()[0]] if differ else []
        assert differ == 0, (table, "duckdb", differ, which)
    a, b = polars.read_parquet(ours), polars.read_parquet(theirs)
    assert a.schema == b.schema and a.equals(b), (table, "polars")
    a = pq.ParquetFile(ours, page_checksum_verification=True)
    b = pq.ParquetFile(theirs)
    assert a.schema.equals(b.schema), (table, a.schema, b.schema)
    assert a.read().equals(b.read()), (table, "pyarrow")

    good = open(ours, "rb").read()
    noticed = {"pyarrow": 0, "duckdb": 0}
    chunks = [a.metadata.row_group(0).column(c) for c in range(a.metadata.num_columns)]
    chunks = [c for c in chunks if c.statistics.has_min_max]  # one of nulls has nothing to lose
    for chunk in chunks:
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        at = start + chunk.total_compressed_size - 2
        open("bad.parquet", "wb").write(good[:at] + bytes([good[at] ^ 4]) + good[at + 1:])
        try:
            pq.ParquetFile("bad.parquet", page_checksum_verification=True).read(columns=[chunk.path_in_schema])
        except OSError:
            noticed["pyarrow"] += 1
        try:
            duckdb.execute(f"SELECT {chunk.path_in_schema} FROM 'bad.parquet'").fetchall()
        except duckdb.Error:
            noticed["duckdb"] += 1
    assert noticed == {"pyarrow": len(chunks), "duckdb": len(chunks)}, (table, len(chunks), noticed)
