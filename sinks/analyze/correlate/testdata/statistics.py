# The statistics of analyze by scipy and pandas. In: JSON on standard input; out:
# JSON, name: value. The golden file statistics.json holds its output.
import json
import sys

import numpy as np
import pandas as pd
import scipy.stats as s
import statsmodels.api as sm

data = json.load(sys.stdin)
out = {}

d = pd.DataFrame(data["runs"])
x, y = d["x"].to_numpy(float), d["y"].to_numpy(float)
out["pearson"] = s.pearsonr(x, y)[0]
out["pearson pandas"] = d["x"].corr(d["y"])
out["spearman"] = s.spearmanr(x, y)[0]
out["spearman pandas"] = d["x"].corr(d["y"], method="spearman")
line = s.linregress(x, y)
half = s.t.ppf(0.975, len(x) - 2) * line.stderr
out["slope"], out["slope low"], out["slope high"] = line.slope, line.slope - half, line.slope + half

# Partial: what is left of both when the other columns have explained what they can.
others = pd.get_dummies(d[["length", "dtype"]], columns=["dtype"], drop_first=True).to_numpy(float)
others = np.c_[np.ones(len(d)), others]
left = lambda v: v - others @ np.linalg.lstsq(others, v, rcond=None)[0]
out["partial"] = s.pearsonr(left(x), left(y))[0]

# The same as a fit: t of a coefficient beside the others is the partial correlation.
fit = sm.OLS(y, np.c_[x, others]).fit()
out["partial statsmodels"] = fit.tvalues[0] / np.sqrt(fit.tvalues[0] ** 2 + fit.df_resid)
interval = s.pearsonr(x, y).confidence_interval(0.95)
out["pearson low"], out["pearson high"] = interval.low, interval.high

# Within models: a fit with a constant for each.
m = pd.DataFrame(data["models"])
fit = sm.OLS(m["y"], np.c_[m["x"], pd.get_dummies(m["model"]).to_numpy(float)]).fit()
out["within slope"], (out["within low"], out["within high"]) = fit.params.iloc[0], fit.conf_int().iloc[0]
out["within pearson"] = fit.tvalues.iloc[0] / np.sqrt(fit.tvalues.iloc[0] ** 2 + fit.df_resid)
out["over all pearson"] = s.pearsonr(m["x"], m["y"])[0]

residuals = y - line.intercept - line.slope * x
scale = s.median_abs_deviation(residuals, center=lambda v, axis: 0, scale="normal")
out["outlier scales"] = float(np.max(np.abs(residuals)) / scale)

# Groups: mean and its interval, and the share of the variance that they explain.
for name, g in d.groupby("dtype")["y"]:
    low, high = s.t.interval(0.95, len(g) - 1, loc=g.mean(), scale=s.sem(g))
    out[f"group {name} mean"], out[f"group {name} low"], out[f"group {name} high"] = g.mean(), low, high
total = ((y - y.mean()) ** 2).sum()
out["eta squared"] = 1 - sum(((g - g.mean()) ** 2).sum() for _, g in d.groupby("dtype")["y"]) / total

for q in (0.25, 0.5, 0.75):
    out[f"quantile {q}"] = pd.Series(data["four"]).quantile(q)

# Differences: Student's t with one variance, and the rates of Benjamini and Hochberg.
t = s.ttest_ind(data["new"], data["base"])
interval = t.confidence_interval(0.95)
out["t p"], out["t low"], out["t high"] = t.pvalue, interval.low, interval.high
for i, q in enumerate(s.false_discovery_control(data["p"])):
    out[f"fdr {i}"] = q

# Through the origin.
u, v = np.array(data["tokens"], float), np.array(data["cache"], float)
slope = (u @ v) / (u @ u)
error = np.sqrt(((v - slope * u) ** 2).sum() / (len(u) - 1) / (u @ u))
half = s.t.ppf(0.975, len(u) - 1) * error
out["origin slope"], out["origin low"], out["origin high"] = slope, slope - half, slope + half

print(json.dumps({k: float(v) for k, v in out.items()}, indent=1))
