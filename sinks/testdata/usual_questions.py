"""Takes the CPU time of the usual questions of a results folder in DuckDB, the best of three, each in a fresh connection.

Arguments: the folder, a run id. stdout: JSON, milliseconds.
"""
import json
import sys
import time

import duckdb

folder, run = sys.argv[1:]
table = lambda name: f"read_parquet('{folder}/tables/{name}/**/*.parquet')"
questions = {
    "peaks_by_model": f"SELECT model, input_len, max(peak_memory_bytes), avg(avg_latency_s) FROM {table('runs')} GROUP BY ALL",
    "one_run": f"SELECT gpu_index, ts, memory_used_bytes, power_w FROM {table('timelines')} WHERE run_id = '{run}' ORDER BY ALL",
    "power_by_night": f"SELECT execution, avg(power_w) FROM {table('timelines')} GROUP BY execution",
}
best = {}
for name, sql in questions.items():
    for _ in range(3):
        db = duckdb.connect()
        start = time.process_time()
        rows = len(db.execute(sql).df())
        took = (time.process_time() - start) * 1000
        assert rows
        best[name] = min(best.get(name, took), took)
        db.close()
print(json.dumps(best))
