package models

import "testing"

// BenchmarkNewEstimate plans over every model of the catalogue at two lengths:
// 100,000 profiles have to be estimated within the planning second.
func BenchmarkNewEstimate(b *testing.B) {
	c := builtin(b)
	g, _ := LookupGPU("h100-80gb")
	var list []*Architecture
	for _, id := range c.Names() {
		a, _ := c.Lookup(id)
		list = append(list, a)
	}
	lens := []int64{4096, 32768}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r := Request{TensorParallelSize: 1 + int64(i%2), InputLen: 512, OutputLen: 128, BatchSize: 8, MaxModelLen: &lens[i%2]}
		NewEstimate(list[i%len(list)], r, g)
		i++
	}
}

func BenchmarkBuiltin(b *testing.B) {
	for b.Loop() {
		if _, err := Builtin(); err != nil {
			b.Fatal(err)
		}
	}
}
