// Package sampling is what the instruments of both vendors and of the host
// share: a Sampler that keeps its sources going, the Meter that stamps ticks and
// keeps the account, schedules, tools and helper children and what they write,
// units, and what a full reading of a GPU holds.
//
// It knows no vendor: imports go gpu -> nvidia, amd, host -> sampling.
package sampling
