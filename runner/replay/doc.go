// Package replay makes a result of a vLLM log that stands alone, of a server or
// a benchmark that nobody sampled: what it says of memory, and nothing else.
package replay
