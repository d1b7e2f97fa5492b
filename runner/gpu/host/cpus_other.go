//go:build !linux

package host

// AllowedCPUs are not known here: engines have all of them.
func AllowedCPUs() ([]int, error) { return nil, nil }
