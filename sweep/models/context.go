package models

// contextOneH100 is the CUDA context of one process with torch on an H100 at
// TP 1: 79.18 - 78.66 GiB in each of the 0.26 runs (78.68 of 79.19 in those of 0.19).
const contextOneH100 = 52 * gib / 100
