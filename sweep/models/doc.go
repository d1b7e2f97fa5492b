// Package models knows the architectures of language models (models.json and
// Hugging Face config.json files), the GPUs they run on, and the arithmetic of
// what vLLM will need in memory for them.
//
// Every formula names its units and its source. What the arithmetic does not
// know it says; it never guesses.
package models
