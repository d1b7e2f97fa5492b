"""Runs the blocks of docs/cookbook.md and compares the answers of a question.

stdin: JSON {"start": {"sql": ..., "python": ...}, "questions": [{"title", "sql", "python"}]};
the working directory holds results/. stdout: a line a question.
"""
import ast
import json
import sys

import duckdb
import pandas as pd


def run(code, names):
    """Executes Python; the value of the last expression is the answer."""
    body = ast.parse(code).body
    last = body.pop()
    exec(compile(ast.Module(body, []), "cookbook", "exec"), names)
    if not isinstance(last, ast.Expr):
        exec(compile(ast.Module([last], []), "cookbook", "exec"), names)
        return None
    return eval(compile(ast.Expression(last.value), "cookbook", "eval"), names)


def main():
    book = json.load(sys.stdin)
    db = duckdb.connect()
    db.execute(book["start"]["sql"])
    names = {}
    run(book["start"]["python"], names)
    failed = False
    for q in book["questions"]:
        try:
            sql = db.execute(q["sql"]).df()
            python = run(q["python"], names).reset_index(drop=True)
            if len(sql) == 0:
                raise AssertionError("no rows")
            if sql.dropna(how="all", axis=1).shape[1] != sql.shape[1]:
                raise AssertionError(f"a column is null throughout:\n{sql}")
            pd.testing.assert_frame_equal(sql, python, check_dtype=False, check_column_type=False, check_categorical=False, rtol=1e-9, atol=1e-9)
            print("ok", len(sql), q["title"])
        except Exception as e:
            failed = True
            print("FAILED", q["title"], type(e).__name__, e)
    sys.exit(1 if failed else 0)


main()
