//go:build unix

package sinks

import "syscall"

// FreeBytes is the room that the file system of a folder has for this user.
func FreeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // of another type on other systems
}
