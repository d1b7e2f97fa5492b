"""Times COPY ... TO of the rows of a Parquet file, from memory, as a benchmark's other side.

Arguments: the file, where to write. stdout: JSON.
"""
import json
import os
import resource
import sys
import time

import duckdb

source, target = sys.argv[1:]
db = duckdb.connect()
db.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{source}')")
db.execute("SET threads = 1")
db.execute("SET preserve_insertion_order = true")
cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
start, cpu_start = time.perf_counter(), cpu()
db.execute(f"COPY t TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, PARQUET_VERSION v1)")
print(json.dumps({"wall_s": time.perf_counter() - start, "cpu_s": cpu() - cpu_start, "bytes": os.path.getsize(target), "duckdb": duckdb.__version__}))
