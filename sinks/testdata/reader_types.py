"""Prints the types that DuckDB, pandas, polars and pyarrow see in each table.

The working directory holds results/; the arguments are the tables.
"""
import sys

import duckdb
import pandas
import polars
import pyarrow.dataset

print(", ".join(f"{m.__name__} {m.__version__.split('.')[0]}" for m in (duckdb, pandas, polars, pyarrow)))
for table in sys.argv[1:]:
    glob, folder = f"results/tables/{table}/**/*.parquet", f"results/tables/{table}"
    seen = {name: kind for name, kind, *_ in duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet('{glob}')").fetchall()}
    frame = pandas.read_parquet(folder)
    lazy = polars.scan_parquet(glob).collect_schema()
    arrow = pyarrow.dataset.dataset(folder, partitioning="hive").schema
    names = list(seen)
    for other in (frame.columns, arrow.names):
        assert set(names) == set(other), (table, set(names) ^ set(other))
    assert len(frame) == duckdb.execute(f"SELECT count(*) FROM read_parquet('{glob}')").fetchone()[0] == polars.scan_parquet(glob).select(polars.len()).collect().item()
    print(f"{table}: duckdb | pandas | polars | pyarrow")
    for name in names:
        pandas_type = str(frame[name].dtype).split("[")[0] if name == "month" else frame[name].dtype
        print(f"  {name}: {seen[name]} | {pandas_type} | {lazy.get(name)} | {arrow.field(name).type}")
