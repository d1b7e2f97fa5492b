# A comparison of two executions by scipy and statsmodels. In: JSON on standard
# input, figure: [{"base": [...], "new": [...], "off": [base, new]}, ...] on the figure's
# scale. Out: JSON, figure: [[low, high, q], ...], the last of all profiles together.
import json
import sys

import numpy as np
import scipy.optimize as opt
import scipy.stats as st
from statsmodels.stats.multitest import multipletests


def prior(s2, d):
    """The scaled F by maximum likelihood over the same degrees of freedom."""
    best = None
    for d0 in (np.inf, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1):
        if np.isinf(d0):
            s0 = np.average(s2, weights=d)
            like = (st.chi2.logpdf(s2 * d / s0, d) + np.log(d / s0)).sum()
        else:
            fit = opt.minimize_scalar(lambda l: -(st.f.logpdf(s2 / np.exp(l), d, d0) - l).sum(), bracket=(np.log(s2.mean()) - 1, np.log(s2.mean())), tol=1e-10)
            s0, like = np.exp(fit.x), -fit.fun
        if best is None or like > best[0]:
            best = like, s0, d0
    return best[1:]


def add(*parts):
    """Satterthwaite."""
    v = sum(p[0] for p in parts)
    return v, v**2 / sum(p[0] ** 2 / p[1] for p in parts)


tests, where = [], {}
for figure, profiles in json.load(sys.stdin).items():
    d = np.array([len(p["base"]) + len(p["new"]) - 2 for p in profiles], float)
    ss = lambda v: ((np.array(v) - np.mean(v)) ** 2).sum()
    s2 = np.array([ss(p["base"]) + ss(p["new"]) for p in profiles]) / d
    s0, d0 = prior(s2, d)
    parts = []
    for p, own, dof in zip(profiles, s2, d):
        v, f = (s0, d.sum()) if np.isinf(d0) else ((dof * own + d0 * s0) / (dof + d0), min(dof + d0, d.sum()))
        each = 1 / len(p["base"]) + 1 / len(p["new"])
        parts.append((v * each, f))
        off = sum(o**2 for o in p["off"]) / 3
        tests.append((figure, np.mean(p["new"]) - np.mean(p["base"]), *add(parts[-1], (off, np.inf))))
    n = len(profiles)
    v, f = add(*parts)
    off = np.mean([p["off"] for p in profiles], axis=0)
    mean = np.mean([t[1] for t in tests[-n:]])
    tests.append((figure, mean, *add((v / n**2, min(f, d.sum())), ((off**2).sum() / 3, np.inf))))

p = [2 * st.t.sf(abs(m) / np.sqrt(v), f) for _, m, v, f in tests]
out = {}
for (figure, m, v, f), q in zip(tests, multipletests(p, method="fdr_bh")[1]):
    half = st.t.ppf(0.975, f) * np.sqrt(v)
    out.setdefault(figure, []).append([m - half, m + half, q])
print(json.dumps(out))
