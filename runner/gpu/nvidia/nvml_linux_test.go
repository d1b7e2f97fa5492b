package nvidia

import (
	"testing"
	"unsafe"
)

func TestNVMLLayouts(t *testing.T) {
	for name, got := range map[string][2]uintptr{
		"nvmlMemory2":    {unsafe.Sizeof(nvmlMemory2{}), 40},
		"nvmlMemory1":    {unsafe.Sizeof(nvmlMemory1{}), 24},
		"nvmlFieldValue": {unsafe.Sizeof(nvmlFieldValue{}), 40},
		"nvmlProcess":    {unsafe.Sizeof(nvmlProcess{}), 24},
		"nvmlPCI":        {unsafe.Sizeof(nvmlPCI{}), 68},
	} {
		if got[0] != got[1] {
			t.Errorf("%s has %d bytes, nvml.h %d", name, got[0], got[1])
		}
	}
}
