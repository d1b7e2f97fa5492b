//go:build !linux

package gpu

import "errors"

func clockSynchronised() (bool, error) { return false, errors.ErrUnsupported }
